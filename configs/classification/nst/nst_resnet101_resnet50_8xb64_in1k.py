_base_ = '../../_base_/pairs/resnet101_resnet50_8xb64_in1k.py'

# NST with KD as in the authors' ImageNet code; both networks are read at the end before the last ReLU (7x7). There
# KD has the weight 16, which we take for T squared: KDLoss has that factor inside. The authors' student is an
# Inception-BN, which mmpretrain lacks; ours is a ResNet-50.
model = dict(
    losses=dict(
        loss_nst=dict(type='NSTLoss', on='backbone.layer4.2.relu:input', kernel='polynomial', loss_weight=50.0),
        loss_kd=dict(type='KDLoss', on='head.fc', temperature=4.0, loss_weight=1.0),
    )
)
