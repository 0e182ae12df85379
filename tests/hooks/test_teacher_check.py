"""Training must show and read of a teacher what the teacher sees and computes by itself."""

import copy

import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, Dataset

from mmkd_plugin import distill
from mmkd_plugin.hooks import teacher_check
from mmkd_plugin.hooks.teacher_check import check_paths
from tests.conftest import KD, build, student_cfg, trained_like
from tests.end_to_end.helpers import digits_cfg, runner_of

pytestmark = pytest.mark.openmmlab
OTHER = {'mean': [120.0], 'std': [60.0], 'num_classes': 10, 'to_rgb': False}


class Loader(Dataset):
    """Samples of different sizes, whose `img_shape` is stale as behind `torchvision/RandomResizedCrop`."""

    sizes = ((28, 28), (28, 28), (20, 28), (28, 12))
    num_workers = 0

    def __init__(self):
        self.dataset = self

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        image = torch.randint(0, 256, (1, *self.sizes[index]), dtype=torch.uint8)
        return {'inputs': image, 'data_samples': DataSample(metainfo={'img_shape': (5, 90)}).set_gt_label(index)}

    def collate_fn(self, samples):
        return {key: [sample[key] for sample in samples] for key in samples[0]}


@pytest.fixture
def said(monkeypatch):
    texts: list[str] = []
    monkeypatch.setattr(teacher_check, 'print_log', lambda text, *_: texts.append(text))
    return texts


def distilled(teacher_preprocessor=None, **student):
    teacher = trained_like(
        build(student_cfg(**({'data_preprocessor': teacher_preprocessor} if teacher_preprocessor else {})))
    )
    model = distill(build(student_cfg(**student)), KD, teacher=teacher)
    model.distill.prepare(model, torch.zeros(1))
    return model


@pytest.mark.parametrize('preprocessor', [None, OTHER, {**OTHER, 'pad_value': -2.0}], ids=['same', 'other', 'padding'])
def test_paths_agree(preprocessor, said):
    check_paths(distilled(preprocessor), Loader())
    assert not said


def test_other_images_stop_the_run(monkeypatch):
    model = distilled(OTHER)
    teacher = model.distill.teachers['teacher']
    teacher._renormalize.scale.mul_(1.5)
    with pytest.raises(RuntimeError, match='training would show teacher other images than its own data_preprocessor'):
        check_paths(model, Loader())


def test_padding_that_is_read_as_an_image_stops_the_run(monkeypatch):
    """What was seen: sizes taken from a stale `img_shape`."""
    model = distilled({**OTHER, 'pad_value': 0})
    monkeypatch.setattr(model.distill.sizes, 'of', lambda images, samples: [s.img_shape for s in samples])
    with pytest.raises(RuntimeError, match='other images'):
        check_paths(model, Loader())


def test_a_fold_or_layout_that_computes_something_else_stops_the_run(monkeypatch):
    model = distilled()
    teacher = model.distill.teachers['teacher']
    whole = teacher.alone
    monkeypatch.setattr(teacher, 'alone', lambda *args: {tap: value * 1.1 for tap, value in whole(*args).items()})
    with pytest.raises(RuntimeError, match=r"other values at 'head\.fc' of teacher than it computes by itself"):
        check_paths(model, Loader())


class Seen(Hook):
    """What the teacher was shown in the first step."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        self.teacher = runner.model.distill.teachers['teacher']
        self.shown: list[torch.Tensor] = []
        self.show = self.teacher.images
        self.teacher.images = self.keep

    def keep(self, images, sizes=None):
        self.shown.append(self.show(images, sizes))
        return self.shown[-1]


def test_stale_img_shape_in_a_real_pipeline(tmp_path):
    """No pixel is taken for padding where a torchvision transform cut to another size than `img_shape` says."""
    cfg = digits_cfg(tmp_path, epochs=1)
    pipeline = [
        {'type': 'torchvision/ToTensor'}, {'type': 'torchvision/RandomResizedCrop', 'size': 32}, {'type': 'PackInputs'},
    ]  # fmt: skip
    cfg.train_dataloader.dataset.pipeline = pipeline
    cfg.model.teacher = {'model': student_cfg(data_preprocessor={**OTHER, 'pad_value': 77.0}), 'untrained': True}
    runner = runner_of(cfg)
    runner.register_hook(seen := Seen())
    runner.train()
    assert seen.shown[0].shape[-2:] == (32, 32)
    assert not any((shown == 77.0).any() for shown in seen.shown)


def test_samples_are_drawn_without_a_trace():
    class Remembering(Loader):
        def __init__(self):
            super().__init__()
            self.pipeline = []

        def __getitem__(self, index):
            self.pipeline.append(index)
            return super().__getitem__(index)

    loader = Remembering()
    state = torch.get_rng_state()
    model = copy.deepcopy(distilled())
    torch.set_rng_state(state)
    check_paths(model, loader)
    assert loader.pipeline == []
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_draw_where_workers_will():
    """A data set may open its file when it is first asked; workers must not share what this process opened."""

    class Lazy(Loader):
        opened = False

        def __getitem__(self, index):
            self.opened = True
            return super().__getitem__(index)

    data = Lazy()
    model = distilled({**OTHER, 'pad_value': -2.0})
    check_paths(model, DataLoader(data, num_workers=1, collate_fn=data.collate_fn))
    assert not data.opened
    model.distill.teachers['teacher']._renormalize.scale.mul_(1.5)
    with pytest.raises(RuntimeError, match='other images'):
        check_paths(model, DataLoader(data, num_workers=1, collate_fn=data.collate_fn))


def test_what_cannot_be_drawn_is_said(said):
    class Broken(Loader):
        def __getitem__(self, index):
            raise OSError('unreadable')

    check_paths(distilled(), Broken())
    assert 'could not be compared' in said[0]
    assert 'unreadable' in said[0]


def test_models_of_another_kind_are_left_alone():
    from tests.distillation.test_student import Toy

    class Pairs(Loader):
        def __getitem__(self, index):
            return torch.randn(3, 16, 16), index

        def collate_fn(self, samples):
            return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])

    losses = {'loss_kd': {'type': 'KDLoss', 'on': 'net.3'}}
    check_paths(distill(Toy(), losses, teacher=Toy(), input_shape=(3, 16, 16)), Pairs())
