globals().update(__import__('mmkd_plugin').load_config('detection/plain/faster-rcnn_r101_fpn_voc0712.py'))
