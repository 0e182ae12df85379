globals().update(__import__('mmkd_plugin').load_config('digit_scenes/faster_rcnn_student.py'))
