globals().update(__import__('mmkd_plugin').load_config('digit_scenes/dkd_reviewkd_faster_rcnn.py'))
