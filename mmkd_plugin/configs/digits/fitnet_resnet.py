globals().update(__import__('mmkd_plugin').load_config('digits/fitnet_resnet.py'))
