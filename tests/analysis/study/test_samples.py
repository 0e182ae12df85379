"""Images, and where their foreground is: centre, boxes, masks in a folder."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmkd_plugin.analysis.study.networks import build_student
from mmkd_plugin.analysis.study.samples import _cells_of, inputs_of, read_samples
from mmkd_plugin.files.configs import config_path
from tests.analysis.study.runs import student_config

pytestmark = pytest.mark.openmmlab


@pytest.fixture(scope='module')
def student():
    config = student_config()
    return config, build_student(config)


def test_the_centre_is_the_papers(student):
    """Cells 2 to 13 of 16 in each direction, 144 of 256."""
    mask = torch.zeros(224, 224)
    mask[28:196, 28:196] = 1
    foreground, background = _cells_of(mask, (224, 224), 16)
    assert int(foreground.sum()) == 144
    assert bool(foreground[2:14, 2:14].all())
    assert torch.equal(background, ~foreground)
    config, model = student
    samples = read_samples(config, model, 4, 'centre', 14)
    assert [sample.index for sample in samples] == [0, 250, 500, 750]
    assert samples[0].shown.shape == (28, 28, 3)
    # an eighth of 28 is 3.5 pixels, which is 4, and a cell has 2
    assert samples[0].foreground.nonzero().unique().tolist() == list(range(2, 12))


def test_padding_is_neither():
    foreground, background = _cells_of(torch.ones(8, 5), (8, 8), 4)
    assert foreground[0].tolist() == [True, True, False, False]
    assert background[0].tolist() == [False] * 4


def test_masks_in_a_folder(student, tmp_path):
    config, model = student
    mask = np.zeros((28, 28), np.uint8)
    mask[:7, :14] = 3
    for index in (0, 500):
        cv2.imwrite(str(tmp_path / f'{index}.png'), mask)
    samples = read_samples(config, model, 2, str(tmp_path), 4)
    assert samples[1].foreground.nonzero().tolist() == [[0, 0], [0, 1]]
    with pytest.raises(ValueError, match=r'image 333 \(1933\) has no mask: looked for .*333.png'):
        read_samples(config, model, 3, str(tmp_path), 4)
    cv2.imwrite(str(tmp_path / '500.png'), mask[:20])
    with pytest.raises(ValueError, match=r'500.png. has 20x28 pixels, expected 28x28'):
        read_samples(config, model, 2, str(tmp_path), 4)
    cv2.imwrite(str(tmp_path / '500.png'), np.zeros_like(mask))
    with pytest.raises(ValueError, match=r'image 500 \(\d+\) has no foreground; concepts need both'):
        read_samples(config, model, 2, str(tmp_path), 4)
    left = read_samples(config, model, 2, str(tmp_path), 4, skip_empty=True)
    assert [sample.index for sample in left] == [0]
    (tmp_path / '500.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'is no image that OpenCV reads'):
        read_samples(config, model, 2, str(tmp_path), 4)


def test_boxes_of_a_detection_data_set_that_is_resized():
    """In the pixels of the resized image, which the network gets padded."""
    config = Config.fromfile(config_path('digit_scenes/faster_rcnn_student.py'))
    config.test_dataloader.dataset.pipeline[1].scale = (320, 320)
    config.model.data_preprocessor.pad_size_divisor = 256
    from mmengine.registry import DATASETS, DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build_student(config)
        (sample,) = read_samples(config, model, 1, 'boxes', 64)
        info = DATASETS.build(config.test_dataloader.dataset).get_data_info(0)
    assert sample.padded == (512, 512) == tuple(inputs_of(model, sample.batch).shape[-2:])
    assert sample.shown.shape == (320, 320, 3)
    expected = torch.zeros(512, 512)
    for one in info['instances']:
        x1, y1, x2, y2 = (round(2 * edge) for edge in one['bbox'])
        expected[y1:y2, x1:x2] = 1
    means = expected.unfold(0, 8, 8).unfold(1, 8, 8).mean((2, 3))
    assert torch.equal(sample.foreground, means > 0.5)
    assert bool(sample.valid[:40, :40].all())
    assert not bool(sample.valid[40:].any())
