# The last link of a chain: three teachers at once, which configs/digits/view_teacher_*.py leave (tools/chain.py).
_base_ = '../../digits/resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teachers={
        view: dict(
            config=f'mmkd_plugin::digits/view_teacher_{view}.py',
            checkpoint=f'work_dirs/view_teacher_{view}/epoch_15.pth',
        )
        for view in ('rotated', 'inverted', 'covered')
    },
)
custom_hooks = [*_base_.custom_hooks, dict(type='TeacherEvalHook')]
