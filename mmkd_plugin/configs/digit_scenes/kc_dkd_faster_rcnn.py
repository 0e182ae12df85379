globals().update(__import__('mmkd_plugin').load_config('digit_scenes/kc_dkd_faster_rcnn.py'))
