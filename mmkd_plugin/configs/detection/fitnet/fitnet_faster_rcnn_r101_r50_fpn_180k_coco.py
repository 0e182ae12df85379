globals().update(__import__('mmkd_plugin').load_config('detection/fitnet/fitnet_faster-rcnn_r101_r50_fpn_180k_coco.py'))
