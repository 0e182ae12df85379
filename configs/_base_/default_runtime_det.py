_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['mmkd_plugin'], allow_failed_imports=False)

# A killed run resumes exactly: its last checkpoint is whole, and an epoch's random numbers depend on
# the seed and the epoch alone.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, backend_args=dict(backend='atomic')))
custom_hooks = [dict(type='EpochSeedHook')]
randomness = dict(seed=0)
