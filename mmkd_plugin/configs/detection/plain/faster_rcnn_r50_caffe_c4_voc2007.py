globals().update(__import__('mmkd_plugin').load_config('detection/plain/faster-rcnn_r50-caffe-c4_voc2007.py'))
