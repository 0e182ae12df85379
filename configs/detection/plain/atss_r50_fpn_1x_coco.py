# mmdet's own, but that a killed run resumes.
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmkd_plugin'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, backend_args=dict(backend='atomic')))
custom_hooks = [dict(type='EpochSeedHook')]
randomness = dict(seed=0)
train_dataloader = dict(persistent_workers=False)  # EpochSeedHook seeds the workers of each epoch
