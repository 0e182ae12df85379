globals().update(
    __import__('mmkd_plugin').load_config('detection/dkd_reviewkd/dkd_reviewkd_faster-rcnn_r50_r18_fpn_voc0712.py')
)
