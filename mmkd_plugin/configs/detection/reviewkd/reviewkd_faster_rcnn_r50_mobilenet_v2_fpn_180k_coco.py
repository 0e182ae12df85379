globals().update(
    __import__('mmkd_plugin').load_config('detection/reviewkd/reviewkd_faster-rcnn_r50_mobilenet-v2_fpn_180k_coco.py')
)
