_base_ = '../../_base_/pairs/resnet50_mobilenet_v1_8xb64_in1k.py'

model = dict(
    task_loss=dict(loss_weight=0.5),
    losses=dict(loss_kd=dict(type='KDLoss', on='head.fc', temperature=1.0, loss_weight=0.5)),
)
