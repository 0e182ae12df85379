globals().update(__import__('mmkd_plugin').load_config('detection/nst/nst_faster-rcnn_r101_r50-caffe-c4_voc2007.py'))
