"""Running networks for their taps."""

from mmkd_plugin.networks.dry_run import evaluating


def test_evaluating_restores_each_modules_mode(student):
    student.train()
    student.backbone.eval()
    with evaluating(student):
        assert not student.head.training
    assert student.head.training
    assert not student.backbone.training
