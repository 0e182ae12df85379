import copy
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import ImgDataPreprocessor
from mmengine.structures import InstanceData
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from torch import nn

from mmkd_plugin.teachers.preprocessing import Renormalize, SizesBeforePadding

PYTORCH = {'mean': [123.7, 116.3, 103.5], 'std': [58.4, 57.1, 57.4], 'to_rgb': True}
CAFFE = {'mean': [103.5, 116.3, 123.7], 'std': [1.0, 1.0, 1.0], 'to_rgb': False}
HALF = {'mean': [127.5, 127.5, 127.5], 'std': [127.5, 127.5, 127.5], 'to_rgb': True}
RAW = {'mean': [0, 0, 0], 'std': [1, 1, 1]}
STYLES = [PYTORCH, CAFFE, HALF, RAW]


def raw(n=3, size=8):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8))


@pytest.mark.parametrize('student', STYLES)
@pytest.mark.parametrize('teacher', STYLES)
def test_teacher_sees_what_its_own_preprocessor_makes(student, teacher):
    a, b = ClsDataPreprocessor(**student), ClsDataPreprocessor(**teacher)
    images = a({'inputs': raw()})['inputs']
    expected = b({'inputs': raw()})['inputs']
    torch.testing.assert_close(Renormalize(a, b, 'teacher')(images), expected, atol=2e-4, rtol=1e-5)


def test_same_preprocessing_costs_nothing():
    a, b = ClsDataPreprocessor(**PYTORCH), ClsDataPreprocessor(**PYTORCH)
    images = torch.randn(2, 3, 4, 4)
    assert Renormalize(a, b, 'teacher')(images) is images


def test_mmengine_preprocessor_with_bgr_flag():
    a = ImgDataPreprocessor(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True)
    b = ImgDataPreprocessor(mean=[3, 2, 1], std=[1, 1, 1])
    images = a({'inputs': raw()})['inputs']
    torch.testing.assert_close(Renormalize(a, b, 't')(images), b({'inputs': raw()})['inputs'], atol=1e-4, rtol=1e-5)


def test_padding_gets_the_teachers_padding_value():
    a, b = ClsDataPreprocessor(**PYTORCH), ClsDataPreprocessor(**HALF, pad_value=7)
    images = [raw(1, 8)[0], raw(1, 8)[0][:, :6, :4]]
    got = Renormalize(a, b, 'teacher')(a({'inputs': images})['inputs'], [(8, 8), (6, 4)])
    torch.testing.assert_close(got, b({'inputs': images})['inputs'], atol=2e-4, rtol=1e-5)
    assert (got[1, :, 6:] == 7).all()


def test_padding_multiples_that_cannot_be_matched():
    a, b = ClsDataPreprocessor(pad_size_divisor=16), ClsDataPreprocessor(pad_size_divisor=32)
    with pytest.raises(ValueError, match='big pads images to multiples of 32, the student to multiples of 16'):
        Renormalize(a, b, 'big')


@pytest.mark.parametrize(('student', 'teacher'), [(PYTORCH, {}), ({}, PYTORCH)])
def test_only_one_of_them_normalises(student, teacher):
    with pytest.raises(ValueError, match=r"data_preprocessor normalises images and the other's does not"):
        Renormalize(ClsDataPreprocessor(**student), ClsDataPreprocessor(**teacher), 'teacher')


def test_unknown_kind():
    class Own(nn.Module):
        pass

    with pytest.raises(ValueError, match=r"the t's data preprocessor \(Own\) does something else to an image"):
        Renormalize(ClsDataPreprocessor(**PYTORCH), Own(), 't')


def test_teacher_without_preprocessor_takes_the_students_batch():
    images = torch.randn(1, 3, 2, 2)
    assert Renormalize(ClsDataPreprocessor(**PYTORCH), None, 't')(images) is images


@pytest.mark.openmmlab
def test_mmdets_caffe_style_teacher_of_a_pytorch_style_student():
    from mmdet.models import DetDataPreprocessor
    from mmdet.structures import DetDataSample

    def style(mean, std, **kwargs):
        return DetDataPreprocessor(mean=mean, std=std, pad_size_divisor=32, **kwargs)

    a = style([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], bgr_to_rgb=True)
    b = style([103.53, 116.28, 123.675], [1.0, 1.0, 1.0], bgr_to_rgb=False)
    images = [raw(1, 40)[0], raw(1, 40)[0][:, :20, :33]]
    samples = [DetDataSample(metainfo={'img_shape': tuple(image.shape[-2:])}) for image in images]
    made = a({'inputs': images, 'data_samples': samples})['inputs']
    got = Renormalize(a, b, 'teacher')(made, [(40, 40), (20, 33)])
    expected = b({'inputs': images, 'data_samples': samples})['inputs']
    assert got.shape == (2, 3, 64, 64)
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-5)
    assert (got[1, :, 20:] == 0).all()


def test_another_padding_value_alone_is_restored():
    a, b = ClsDataPreprocessor(**PYTORCH), ClsDataPreprocessor(**PYTORCH, pad_value=-3)
    images = [raw(1, 8)[0], raw(1, 8)[0][:, :6, :4]]
    made, renormalize = a({'inputs': images})['inputs'], Renormalize(a, b, 'teacher')
    assert torch.equal(renormalize(made, [(8, 8), (6, 4)]), b({'inputs': images})['inputs'])
    assert renormalize(made, [(8, 8), (8, 8)]) is made


class TestSizes:
    def student(self, **options):
        model: Any = nn.Module()
        model.data_preprocessor = ClsDataPreprocessor(**PYTORCH, **options)
        return model, SizesBeforePadding(model)

    def test_are_what_came_into_the_preprocessor(self):
        model, sizes = self.student()
        images = model.data_preprocessor({'inputs': [raw(1, 8)[0], raw(1, 8)[0][:, :6, :4]]})['inputs']
        assert sizes.of(images) == [(8, 8), (6, 4)]
        assert sizes.of(images.clone()) is None, 'a batch that nobody saw coming'

    def test_padding_to_a_multiple(self):
        model, sizes = self.student(pad_size_divisor=32)
        images = model.data_preprocessor({'inputs': raw(2, 40)})['inputs']
        assert images.shape == (2, 3, 64, 64)
        assert sizes.of(images) == [(40, 40)] * 2

    def test_a_stale_img_shape_is_not_believed(self):
        """As mmpretrain's `torchvision/RandomResizedCrop` leaves it."""
        model, sizes = self.student()
        samples = [DataSample(metainfo={'img_shape': (60, 150)}) for _ in range(2)]
        images = model.data_preprocessor({'inputs': raw(2, 224), 'data_samples': samples})['inputs']
        got = Renormalize(model.data_preprocessor, ClsDataPreprocessor(**HALF), 't')(images, sizes.of(images, samples))
        expected = ClsDataPreprocessor(**HALF)({'inputs': raw(2, 224)})['inputs']
        torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-5)

    def test_copies_listen_to_copies(self):
        model, sizes = self.student()
        model.sizes = sizes
        twin = copy.deepcopy(model)
        images = twin.data_preprocessor({'inputs': [raw(1, 8)[0], raw(1, 8)[0][:, :6]]})['inputs']
        assert twin.sizes.of(images) == [(8, 8), (6, 8)]
        assert sizes.of(images) is None

    @pytest.mark.openmmlab
    def test_batch_augmentations_of_mmdet_tell_theirs(self):
        from mmdet.models import DetDataPreprocessor
        from mmdet.structures import DetDataSample

        model: Any = nn.Module()
        resize = {'type': 'mmdet.BatchSyncRandomResize', 'random_size_range': (64, 64), 'size_divisor': 32}
        model.data_preprocessor = DetDataPreprocessor(pad_size_divisor=32, batch_augments=[resize])
        sizes = SizesBeforePadding(model)
        model.data_preprocessor.batch_augments[0]._input_size = (64, 64)
        MessageHub.get_current_instance().update_info('iter', 0)
        samples = [DetDataSample(metainfo={'img_shape': s}) for s in ((32, 32), (20, 16))]
        for sample in samples:
            sample.gt_instances = InstanceData(bboxes=torch.zeros(0, 4))
        images = [raw(1, 32)[0], raw(1, 32)[0][:, :20, :16]]
        made = model.data_preprocessor({'inputs': images, 'data_samples': samples}, training=True)
        assert made['inputs'].shape[-2:] == (64, 64)
        assert sizes.of(made['inputs'], made['data_samples']) == [(64, 64), (40, 32)]


class TestWhatCannotBeRead:
    def test_a_preprocessor_that_renamed_what_it_does(self):
        """Its private names say nothing of it; an image that is sent through does."""

        class Quiet(ClsDataPreprocessor):
            def forward(self, data, training=False):
                return super().forward({**data, 'inputs': [image.flip(0) for image in data['inputs']]}, training)

        quiet = Quiet(**{**PYTORCH, 'to_rgb': False})
        assert Renormalize(ClsDataPreprocessor(**PYTORCH), quiet, 't').identity
        assert Renormalize(ClsDataPreprocessor(**{**PYTORCH, 'to_rgb': False}), quiet, 't').flip

    def test_gamma(self):
        class Gamma(ClsDataPreprocessor):
            def forward(self, data, training=False):
                data = super().forward(data, training)
                return {**data, 'inputs': data['inputs'].abs().sqrt()}

        with pytest.raises(ValueError, match=r"t's data preprocessor \(Gamma\) does something else to an image than"):
            Renormalize(ClsDataPreprocessor(**PYTORCH), Gamma(**PYTORCH), 't')
        assert Renormalize(Gamma(**PYTORCH), Gamma(**PYTORCH), 't').identity, 'the same on both sides'
        with pytest.raises(ValueError, match='does something else'):
            Renormalize(Gamma(**PYTORCH), Gamma(**HALF), 't')
