globals().update(__import__('mmkd_plugin').load_config('digit_scenes/at_faster_rcnn.py'))
