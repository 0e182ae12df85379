_base_ = '../../_base_/pairs/resnet34_resnet18_8xb32_in1k.py'

# As in MMRazor, which scales the vectors to length 1.
model = dict(
    losses=dict(loss_rkd=dict(type='RKDLoss', on='neck', distance_weight=25.0, angle_weight=50.0, normalize=True))
)
