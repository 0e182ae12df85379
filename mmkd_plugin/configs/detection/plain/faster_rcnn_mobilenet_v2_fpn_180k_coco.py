globals().update(__import__('mmkd_plugin').load_config('detection/plain/faster-rcnn_mobilenet-v2_fpn_180k_coco.py'))
