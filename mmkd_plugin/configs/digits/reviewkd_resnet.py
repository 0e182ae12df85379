globals().update(__import__('mmkd_plugin').load_config('digits/reviewkd_resnet.py'))
