globals().update(__import__('mmkd_plugin').load_config('digits/resnet_student.py'))
