globals().update(__import__('mmkd_plugin').load_config('digits/at_resnet.py'))
