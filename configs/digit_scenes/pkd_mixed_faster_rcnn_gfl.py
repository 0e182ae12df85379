_base_ = '../_base_/pairs/faster_rcnn_gfl_digit_scenes.py'

# Strides 8, 16 and 32 of both; the teacher's neck begins at 4.
model = dict(losses=dict(loss_pkd=dict(
    type='PKDLoss', on=[dict(student=f'neck[{i}]', teacher=f'neck[{i + 1}]') for i in range(3)], loss_weight=6.0,
)))  # fmt: skip
