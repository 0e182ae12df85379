globals().update(__import__('mmkd_plugin').load_config('detection/dkd/dkd_faster-rcnn_r101_r50_fpn_voc0712.py'))
