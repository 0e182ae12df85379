globals().update(__import__('mmkd_plugin').load_config('detection/kcd/kc_dkd_faster-rcnn_r101_r50_fpn_voc2007.py'))
