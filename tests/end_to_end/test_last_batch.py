"""A last batch of one image, on which the plain student trains."""

import pytest

from tests.end_to_end.helpers import digits_cfg, runner_of

pytestmark = [pytest.mark.openmmlab]
VECTORS = {'type': 'FitNetLoss', 'on': 'neck'}
STAGES = {'type': 'ReviewKDLoss', 'on': ['backbone.layer3', 'backbone.layer4', 'neck']}
BEFORE_RELU = {'type': 'OFDLoss', 'on': ['backbone.layer3.1.relu:input', 'backbone.layer4.1.relu:input']}
ATTENTION = {'type': 'SemCKDLoss', 'on': ['backbone.layer3', 'backbone.layer4'], 'batch_size': 13}


@pytest.mark.parametrize('loss', [VECTORS, STAGES, BEFORE_RELU, ATTENTION], ids=['fitnet', 'reviewkd', 'ofd', 'semckd'])
def test_connectors_train_on_it(tmp_path, loss):
    cfg = digits_cfg(tmp_path, epochs=2)
    cfg.train_dataloader.batch_size = 13
    cfg.model.losses = {'loss_x': loss}
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = runner_of(cfg)
    sizes = []
    runner.model.data_preprocessor.register_forward_hook(lambda _m, _i, out: sizes.append(len(out['inputs'])))
    runner.train()
    assert runner.iter == 8
    assert sizes == [13, 13, 13, 1] * 2
