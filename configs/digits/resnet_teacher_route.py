# The teacher that ships with the package, which keeps anchors for configs/digits/rco_resnet.py on its way.
_base_ = 'resnet_teacher.py'

default_hooks = dict(checkpoint=dict(interval=8, max_keep_ckpts=-1))
