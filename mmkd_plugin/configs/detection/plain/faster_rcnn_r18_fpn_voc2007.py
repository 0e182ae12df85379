globals().update(__import__('mmkd_plugin').load_config('detection/plain/faster-rcnn_r18_fpn_voc2007.py'))
