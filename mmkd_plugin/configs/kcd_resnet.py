globals().update(__import__('mmkd_plugin').load_config('kcd_resnet.py'))
