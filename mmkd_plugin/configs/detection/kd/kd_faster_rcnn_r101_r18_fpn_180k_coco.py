globals().update(__import__('mmkd_plugin').load_config('detection/kd/kd_faster-rcnn_r101_r18_fpn_180k_coco.py'))
