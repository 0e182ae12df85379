_base_ = 'lwf_resnet.py'

model = dict(
    teacher=dict(
        config='mmkd_plugin::digits/lwf_step2_resnet.py', checkpoint='work_dirs/lwf_step2_resnet/epoch_20.pth'
    ),
    head=dict(loss=dict(old=7)),
)
train_dataloader = dict(dataset=dict(classes=[7, 8, 9]))
val_evaluator = dict(old=7)
test_evaluator = val_evaluator
