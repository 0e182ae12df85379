"""Images reach the networks as published: stand-ins for the data sets, through the configs' own pipelines."""

import json
import pickle

import cv2
import numpy as np
import pytest

from tests.configs.reading import load, scope_of

pytestmark = pytest.mark.openmmlab


def test_cifar100_images_reach_the_network_as_published(tmp_path, monkeypatch):
    """A stand-in for CIFAR-100 in its own file format, through the configs' dataset and normalisation."""
    from mmpretrain.datasets import CIFAR100
    from mmpretrain.registry import DATASETS, MODELS

    rng = np.random.default_rng(0)
    folder = tmp_path / 'cifar-100-python'
    folder.mkdir()
    pixels = rng.integers(1, 256, (4, 3 * 32 * 32), dtype=np.uint8)
    for split in ('train', 'test'):
        (folder / split).write_bytes(pickle.dumps({'data': pixels, 'fine_labels': [3, 1, 4, 15]}))
    monkeypatch.setattr(CIFAR100, '_check_integrity', lambda self: True)

    cfg = load('classification/plain/resnet20_cifar100.py')
    train, test = (
        DATASETS.build({**loader.dataset, 'data_root': str(tmp_path)})
        for loader in (cfg.train_dataloader, cfg.test_dataloader)
    )
    preprocess = MODELS.build({'type': 'ClsDataPreprocessor', **cfg.data_preprocessor})
    batch = preprocess({'inputs': [test[0]['inputs']], 'data_samples': [test[0]['data_samples']]})
    mean = np.array([0.5071, 0.4867, 0.4408]).reshape(3, 1, 1)
    std = np.array([0.2675, 0.2565, 0.2761]).reshape(3, 1, 1)
    expected = (pixels[0].reshape(3, 32, 32) / 255 - mean) / std  # the file is RGB, channels first
    np.testing.assert_allclose(batch['inputs'][0].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert batch['data_samples'][0].gt_label.item() == 3

    padded = np.pad(pixels[0].reshape(3, 32, 32), ((0, 0), (4, 4), (4, 4)))
    shifts = {
        view.tobytes()
        for flipped in (padded, padded[:, :, ::-1])
        for y in range(9)
        for x in range(9)
        for view in [flipped[:, y : y + 32, x : x + 32]]
    }
    seen = {train[0]['inputs'].numpy().tobytes() for _ in range(60)}
    assert seen <= shifts  # padded by 4 with black, cropped to 32, flipped or not
    assert len(seen) > 20


def test_coco_images_are_resized_as_published(tmp_path):
    """A stand-in for COCO, through the config's dataset: the short side is one of six, the long one bounded."""
    from mmdet.registry import DATASETS

    (tmp_path / 'train2017').mkdir()
    (tmp_path / 'annotations').mkdir()
    shapes = [(60, 80), (30, 120)]  # height, width
    for index, shape in enumerate(shapes):
        cv2.imwrite(str(tmp_path / f'train2017/{index}.png'), np.zeros((*shape, 3), np.uint8))
    images = [{'id': i, 'file_name': f'{i}.png', 'height': h, 'width': w} for i, (h, w) in enumerate(shapes)]
    boxes = [{'id': i, 'image_id': i, 'category_id': 1, 'bbox': [1, 1, 9, 9], 'area': 81, 'iscrowd': 0} for i in (0, 1)]
    content = {'images': images, 'annotations': boxes, 'categories': [{'id': 1, 'name': 'person'}]}
    (tmp_path / 'annotations/instances_train2017.json').write_text(json.dumps(content))

    cfg = load('detection/plain/faster-rcnn_r50_fpn_180k_coco.py').train_dataloader.dataset
    cfg.update(data_root=f'{tmp_path}/', filter_cfg=None)
    with scope_of('180k_coco'):
        dataset = DATASETS.build(cfg)
    shorts = {640, 672, 704, 736, 768, 800}
    seen = {dataset[0]['inputs'].shape[1:] for _ in range(12)}
    assert {min(size) for size in seen} <= shorts
    assert len(seen) > 2
    assert all(abs(w / h - 80 / 60) < 0.01 for h, w in seen)
    assert dataset[1]['inputs'].shape[1:] == (333, 1333)  # 4 times as wide as high: the long side bounds it
