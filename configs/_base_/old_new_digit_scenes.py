# The digits 5 to 9 after 0 to 4: the student starts from what configs/digit_scenes/lwf_old_faster_rcnn.py leaves
# (tools/chain.py). The old digits are in the pictures, and have no boxes.
_base_ = '../digit_scenes/faster_rcnn_student.py'

model = dict(
    type='Distilled',
    student='FasterRCNN',
    teacher=dict(
        config='mmkd_plugin::digit_scenes/lwf_old_faster_rcnn.py',
        checkpoint='work_dirs/lwf_old_faster_rcnn/epoch_20.pth',
    ),
    start='teacher',
)
train_dataloader = dict(dataset=dict(classes=[5, 6, 7, 8, 9]))
val_evaluator = dict(_delete_=True, type='OldNewVOCMetric', old=5, eval_mode='area')
test_evaluator = val_evaluator
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
