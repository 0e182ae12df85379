globals().update(__import__('mmkd_plugin').load_config('digit_scenes/kd_faster_rcnn.py'))
