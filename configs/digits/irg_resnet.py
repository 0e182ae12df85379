_base_ = '../_base_/pairs/teacher_student_digits.py'

# As published for residual networks: the graph of the pooled vectors, and in each stage the transformation from its
# first block to its last. KD, which the full method adds, is left out.
model = dict(losses=dict(
    loss_irg=dict(type='IRGLoss', on='neck', loss_weight=0.005),
    loss_irg_transform=dict(type='IRGTransformLoss', loss_weight=0.005, on=[
        f'backbone.layer{i}.{j}' for i in (1, 2, 3, 4) for j in (0, 1)])))  # fmt: skip
