_base_ = '../dkd/dkd_faster-rcnn_r101_r50_fpn_voc0712.py'

# Our extension, untested: KCD's paper has no detection. An epoch here shows every image three times. In the first,
# values fall so fast that they tell when an image was drawn, so they count from the second on.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='KCDHook', interval=1, begin=1, final_ratio=0.7, alpha=0.03, epsilon_max=0.3),
]
