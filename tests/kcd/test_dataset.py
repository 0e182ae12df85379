"""The condensed data set: the index carries everything, and labels stay."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
    DefaultSampler,
    InfiniteSampler,
    RepeatDataset,
)
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from mmkd_plugin.datasets import INDEX, Digits, IndexedDataset, rewrapped_loader
from mmkd_plugin.kcd.dataset import CondensedDataset, CondensedSampler, Recipe
from mmkd_plugin.kcd.mixtures import Mixer, _plain, _recipe

pytestmark = pytest.mark.openmmlab
PACK = [{'type': 'PackInputs'}]
MIXED = Recipe(3, ((Recipe(17), 0.25),))


def digits(per_class=4, pipeline=PACK):
    return Digits(per_class=per_class, pipeline=copy.deepcopy(pipeline))


def condensed(dataset=None, mode='convex'):
    return CondensedDataset(dataset or digits(), Mixer(mode))


def image(item):
    return item['inputs'][0].numpy()


def original(index, dataset=None):
    return (dataset or digits()).get_data_info(index)['img'][:, :, 0].astype(np.float64)


def test_plain_entries_are_what_they_were():
    data, plain = condensed(), digits()
    assert len(data) == 40
    for index in (0, 39):
        a, b = data[Recipe(index)], plain[index]
        assert torch.equal(a['inputs'], b['inputs'])
        assert a['data_samples'].gt_label == b['data_samples'].gt_label
        assert a['data_samples'].metainfo[INDEX] == index


def test_mixed_before_augmentation_and_labelled_by_the_first():
    crop = [{'type': 'RandomCrop', 'crop_size': 28, 'padding': 4}, *PACK]
    item = condensed(digits(pipeline=crop))[MIXED]
    assert item['data_samples'].gt_label == digits().get_data_info(3)['gt_label']
    assert item['data_samples'].metainfo[INDEX] == 3
    expected = np.trunc(0.75 * original(3) + 0.25 * original(17))
    np.testing.assert_array_equal(image(condensed()[MIXED]), expected)
    # the crop moves the mixture as a whole
    assert image(item).sum() <= expected.sum()
    assert set(np.unique(image(item))) <= {0, *np.unique(expected)}


def test_additive_mixing():
    expected = np.minimum(original(3) + 0.25 * original(17), 255)
    assert np.abs(image(condensed(mode='additive')[MIXED]) - expected).max() <= 1


def test_mixes_of_mixes():
    recipe = Recipe(3, ((Recipe(17, ((Recipe(5), 0.5),)), 0.25), (Recipe(9), 0.1)))
    inner = np.trunc(0.5 * original(17) + 0.5 * original(5))
    first = np.trunc(0.75 * original(3) + 0.25 * inner)
    expected = np.trunc(0.9 * first + 0.1 * original(9))
    assert np.abs(image(condensed()[recipe]) - expected).max() <= 1
    assert _recipe(_plain(recipe)) == recipe


def test_stored_images_are_not_changed():
    data = digits()
    before = original(3, data)
    condensed(data)[MIXED]
    np.testing.assert_array_equal(original(3, data), before)


def test_wrappers():
    concat = ConcatDataset([digits(2), digits(3)])
    assert condensed(concat)[Recipe(21)]['data_samples'].gt_label == concat[21]['data_samples'].gt_label
    mixed = condensed(concat)[Recipe(1, ((Recipe(49), 0.5),))]
    np.testing.assert_array_equal(image(mixed), np.trunc(0.5 * original(1, digits(2)) + 0.5 * original(29, digits(3))))
    repeat = RepeatDataset(digits(2), times=3)
    assert len(condensed(repeat)) == 60
    assert condensed(repeat)[Recipe(45)]['data_samples'].metainfo[INDEX] == 45
    balanced = ClassBalancedDataset(digits(2), 1e-3)
    assert condensed(balanced)[MIXED]['data_samples'].metainfo[INDEX] == 3


def test_unknown_kinds_are_refused():
    class Own(torch.utils.data.Dataset):
        pass

    for dataset in (Own(), RepeatDataset(digits(2), 2)):
        if isinstance(dataset, RepeatDataset):
            dataset.dataset = Own()
        with pytest.raises(TypeError, match="training data is a Own, expected mmengine's BaseDataset"):
            condensed(dataset)
    with pytest.raises(TypeError, match='gives no data sample to carry the index'):
        condensed(digits(pipeline=[]))[Recipe(0)]


def test_mixing_in_the_data_set_itself_is_refused():
    from mmdet.datasets import MultiImageMixDataset

    mixed = MultiImageMixDataset(digits(2), [{'type': 'mmdet.Mosaic'}])
    nested = ConcatDataset([digits(2)])
    nested.datasets[0] = mixed
    for dataset in (mixed, nested):
        with pytest.raises(TypeError, match='training data is a MultiImageMixDataset'):
            condensed(dataset)


def test_image_that_the_pipeline_refuses_is_not_valued():
    class Refuse:
        def __call__(self, results):
            return None if results['sample_idx'] == 3 else results

    data = digits()
    data.pipeline.transforms.insert(0, Refuse())
    assert condensed(data)[Recipe(3)]['data_samples'].metainfo[INDEX] == -1
    assert condensed(data)[Recipe(4)]['data_samples'].metainfo[INDEX] == 4


def test_switched_pipelines_are_the_data_sets():
    data = condensed()
    plain = digits(pipeline=[{'type': 'RandomCrop', 'crop_size': 20}, *PACK])
    data.pipeline = plain.pipeline
    assert data[Recipe(0)]['inputs'].shape == data[MIXED]['inputs'].shape == (1, 20, 20)


def test_samples_prepared_in_another_way():
    class Own(Digits):
        def prepare_data(self, idx):
            return super().prepare_data((idx + 1) % 40)

    own = Own(per_class=4, pipeline=PACK)
    assert torch.equal(CondensedDataset(own, None)[Recipe(3)]['inputs'], digits()[4]['inputs'])
    with pytest.raises(TypeError, match='Own prepares its samples in a way of its own'):
        condensed(own)


def test_other_attributes_are_the_data_sets():
    data = condensed()
    assert isinstance(data, IndexedDataset), 'others need not wrap it again'
    assert data.metainfo['classes'] == tuple('0123456789')
    assert data.get_data_info(MIXED)['sample_idx'] == 3
    with pytest.raises(AttributeError):
        data.nothing  # noqa: B018


def sampler(kept=None, size=40, shuffle=True, recipe=Recipe, **more):
    data = condensed()
    made = CondensedSampler(data, DefaultSampler(range(size), shuffle, seed=3), **more)
    if kept is not None:
        made.keep(kept, recipe)
    return made


def test_full_sampler_is_mmengines():
    mine, theirs = sampler(), DefaultSampler(range(40), seed=3)
    for epoch in (0, 4):
        mine.set_epoch(epoch)
        theirs.set_epoch(epoch)
        assert [recipe.point for recipe in mine] == list(theirs)
    assert len(mine) == 40


def test_kept_points_only_and_shuffled_by_epoch():
    kept = [1, 5, 7, 30]
    made = sampler(kept, recipe=lambda i: Recipe(i, ((Recipe(0), 0.1),)) if i == 7 else Recipe(i))
    orders = []
    for epoch in range(4):
        made.set_epoch(epoch)
        drawn = list(made)
        assert len(drawn) == len(made) == 4
        assert {recipe.point for recipe in drawn} == set(kept)
        assert next(r for r in drawn if r.point == 7).mixes == ((Recipe(0), 0.1),)
        orders.append(tuple(r.point for r in drawn))
    assert len(set(orders)) > 1
    made.keep(kept)
    assert tuple(r.point for r in made) == orders[-1], 'the epoch is lost'


@pytest.mark.parametrize(
    ('kept', 'batch_size', 'length'),
    [
        (33, 8, 32),
        (32, 8, 32),
        (34, 8, 34),
        (33, None, 33),  # batches are cut by something else
        (27, 13, 27),  # the full data have a last batch of one too
        (33, 1, 33),
        (1, 8, 1),  # nothing else is left
    ],
)
def test_no_last_batch_of_one_where_the_full_data_have_none(kept, batch_size, length):
    made = sampler(range(kept), batch_size=batch_size)
    assert len(made) == length
    left_out = set()
    for epoch in range(8):
        made.set_epoch(epoch)
        drawn = {recipe.point for recipe in made}
        assert len(drawn) == length
        left_out |= set(range(kept)) - drawn
    assert (len(left_out) > 3) == (length < kept), 'the same one each time'
    made.keep(range(40))
    assert len(made) == 40


def test_no_last_batch_of_one_on_two_processes(monkeypatch):
    drawn: list[set[int]] = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        made = sampler(range(33), batch_size=8)  # 17 for each, one of them as padding
        assert len(made) == len(list(made)) == 16
        drawn.append({recipe.point for recipe in made})
    assert not drawn[0] & drawn[1]


def test_other_samplers_are_refused():
    with pytest.raises(TypeError, match='has the sampler InfiniteSampler, expected DefaultSampler'):
        CondensedSampler(condensed(), InfiniteSampler(range(4)))


def collate(batch):
    return [(item['data_samples'].metainfo[INDEX], item['inputs'].float().sum().item()) for item in batch]


@pytest.mark.parametrize(('workers', 'persistent'), [(0, False), (2, False), (2, True)])
def test_workers_see_the_current_partition(workers, persistent):
    base = digits()
    loader = DataLoader(
        base, batch_size=4, sampler=DefaultSampler(base, seed=0), num_workers=workers, collate_fn=collate,
        persistent_workers=persistent,
    )  # fmt: skip
    data = condensed(base)
    made = CondensedSampler(data, loader.sampler)
    loader = rewrapped_loader(loader, data, made)
    assert len(loader) == 10
    assert len({index for batch in loader for index, _ in batch}) == 40
    made.keep([2, 3, 8], lambda i: MIXED if i == 3 else Recipe(i))
    assert len(loader) == 1
    expected = {i: float(original(i).sum()) for i in (2, 8)}
    expected[3] = float(np.trunc(0.75 * original(3) + 0.25 * original(17)).sum())
    assert dict(next(iter(loader))) == expected


def test_batch_samplers():
    from mmdet.datasets.samplers import AspectRatioBatchSampler

    base = DATASETS.build({'type': 'DigitScenes', 'split': 'test', 'images': 9, 'pipeline': []})
    assert isinstance(base, BaseDataset)
    inner = DefaultSampler(base, seed=0)
    loader = DataLoader(base, batch_sampler=AspectRatioBatchSampler(inner, 2))
    data = CondensedDataset(base, Mixer('convex'))
    made = CondensedSampler(data, inner)
    loader = rewrapped_loader(loader, data, made)
    made.keep([0, 4, 8])
    batch_sampler: Any = loader.batch_sampler
    batches = list(batch_sampler)
    assert [len(batch) for batch in batches] == [2, 1]
    assert {recipe.point for batch in batches for recipe in batch} == {0, 4, 8}
    assert len(loader) == 2
    assert batch_sampler.sampler is made


def test_a_detection_partner_is_stretched_and_the_boxes_stay():
    pipeline = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True},
        {'type': 'PackDetInputs'},
    ]
    base = DATASETS.build(
        {'type': 'DigitScenes', 'split': 'test', 'images': 5, 'pipeline': pipeline, '_scope_': 'mmdet'}
    )
    plain = base[1]
    load = base.pipeline.transforms[0]
    base.pipeline.transforms[0] = lambda r: load(r) if r['sample_idx'] != 4 else {**load(r), 'img': load(r)['img'][:80]}
    mixed = CondensedDataset(base, Mixer('convex'))[Recipe(1, ((Recipe(4), 0.3),))]
    assert mixed['inputs'].shape == (3, 160, 160)
    assert not torch.equal(mixed['inputs'], plain['inputs'])
    assert torch.equal(
        mixed['data_samples'].gt_instances.bboxes.tensor, plain['data_samples'].gt_instances.bboxes.tensor
    )
