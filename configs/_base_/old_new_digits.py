# The digits 5 to 9 after 0 to 4: the student starts from what configs/digits/lwf_old_resnet.py leaves (tools/chain.py),
# with a classifier of ten, of which the five new rows train alone at first.
_base_ = '../digits/resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teacher=dict(config='mmkd_plugin::digits/lwf_old_resnet.py', checkpoint='work_dirs/lwf_old_resnet/epoch_20.pth'),
    start=dict(teacher='teacher', alone=5),
    head=dict(loss=dict(_delete_=True, type='NewClassesCrossEntropy', old=5)),
)
train_dataloader = dict(batch_size=32, dataset=dict(per_class=100, classes=[5, 6, 7, 8, 9]))
val_evaluator = dict(_delete_=True, type='OldNewAccuracy', old=5, topk=(1,))
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = dict(eta_max=0.02, total_steps=20)
train_cfg = dict(max_epochs=20)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
