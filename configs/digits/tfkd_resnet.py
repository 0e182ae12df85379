# Teacher-free KD with a virtual teacher (Tf-KD_reg) in the form of the authors' code: almost uniform targets, a student
# that is not softened, weights 1 - alpha and alpha. No teacher is trained; alpha is ours.
_base_ = 'resnet_student.py'

model = dict(
    type='Distilled',
    student='ImageClassifier',
    teachers=dict(virtual=dict(type='Labels', correct=0.99, temperature=20.0)),
    task_loss=dict(loss_weight=0.9),
    losses=dict(loss_tfkd=dict(type='KDLoss', on='head.fc', temperature=1.0, loss_weight=0.1)),
)
