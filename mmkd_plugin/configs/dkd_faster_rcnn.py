globals().update(__import__('mmkd_plugin').load_config('dkd_faster_rcnn.py'))
