"""Which configs are chosen, by their names."""

import pytest

from mmkd_plugin.support import all_configs, config_folder, named
from mmkd_plugin.support.choice import family_of, method_of, plainest, representatives

CONFIGS = [
    'gfl/gfl_r101_fpn_ms-2x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py', 'gfl/gfl_r50_fpn_ms-2x_coco.py',
    'hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py', 'hrnet/htc_hrnetv2p-w18_20e_coco.py',
    'htc/htc-without-semantic_r50_fpn_1x_coco.py', 'htc/htc_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet_l_8xb32-300e_coco.py', 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'rtmdet/rtmdet-ins_l_8xb32-300e_coco.py',
]  # fmt: skip


def test_the_plainest_of_each_family_and_of_each_method_left_out():
    assert representatives(CONFIGS) == [
        'gfl/gfl_r50_fpn_1x_coco.py',
        'hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py',
        'htc/htc-without-semantic_r50_fpn_1x_coco.py',
        'htc/htc_r50_fpn_1x_coco.py',
        'rtmdet/rtmdet-ins_l_8xb32-300e_coco.py',
        'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    ]
    assert plainest(CONFIGS[3:5]) == CONFIGS[3]


def test_names():
    assert named(['gfl'], CONFIGS) == ['gfl/gfl_r50_fpn_1x_coco.py']
    assert named(['mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py', 'gfl/'], CONFIGS) == [CONFIGS[0], CONFIGS[1]]
    assert named([], CONFIGS) == representatives(CONFIGS)
    with pytest.raises(ValueError, match=r"no family and no config 'gfi'.*Near: gfl"):
        named(['gfi'], CONFIGS)


@pytest.mark.openmmlab
def test_every_family_of_mmdet_has_one():
    configs = all_configs(config_folder())
    chosen = representatives(configs)
    assert len(configs) > 500
    assert set(map(family_of, chosen)) == set(map(family_of, configs))
    assert set(map(method_of, chosen)) == set(map(method_of, configs))
    assert {'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py', 'ssd/ssd300_coco.py'} <= {
        *chosen
    }
