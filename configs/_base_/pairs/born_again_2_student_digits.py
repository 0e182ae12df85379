# The next generation of born-again networks: the teacher is what configs/digits/born_again_2_resnet.py leaves
# (tools/chain.py).
_base_ = 'student_student_digits.py'

model = dict(
    teacher=dict(
        config='mmkd_plugin::digits/born_again_2_resnet.py',
        checkpoint='work_dirs/born_again_2_resnet/epoch_40.pth',
    )
)
