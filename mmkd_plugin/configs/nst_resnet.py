globals().update(__import__('mmkd_plugin').load_config('nst_resnet.py'))
