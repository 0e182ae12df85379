"""A teacher that is silently wrong: refused, told in the log, seen by its accuracy there, or not found."""

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.registry import TRANSFORMS

from tests.conftest import student_cfg
from tests.reliability.attempt import Attempt, attempt
from tests.reliability.case import Case
from tests.reliability.mistakes import shortened
from tests.reliability.wrong_files import TEACHER, saved, weights

KEY = 'model.teacher.checkpoint'
#: What the right teacher reaches on the 100 validation images of these runs, in %.
RIGHT = 97.0
#: Below that by so much is seen in the log.
SEEN = 3.0
State = dict[str, torch.Tensor]


class Way(NamedTuple):
    """One way of being wrong.

    Attributes:
        what: In words.
        changed: Makes the options of the config in a folder.
        expected: ``refused``, ``told``, ``accuracy``, ``cannot happen`` or ``not found``.
        why: What else there is to say.
    """

    what: str
    changed: Callable[[Path], dict[str, Any]]
    expected: str
    why: str = ''


def _file(change: Callable[[State], Any], **beside: Any) -> Callable[[Path], dict[str, Any]]:
    """The shipped weights, changed, without the names of the classes."""

    def made(folder: Path) -> dict[str, Any]:
        state = weights()
        change(state)
        return {KEY: str(saved(folder / 'teacher.pth', {'state_dict': state, **beside}))}

    return made


def _network(**changed: Any) -> Callable[[Path], dict[str, Any]]:
    """The shipped weights in a network that is described otherwise."""

    def made(folder: Path) -> dict[str, Any]:
        model = student_cfg(**{'data_preprocessor': {'num_classes': 10, 'mean': [33.3], 'std': [78.6]}})
        model['backbone'].update(stem_channels=16, base_channels=16)
        model['head'].update(in_channels=128)
        for key, value in changed.items():
            model[key] = {**model[key], **value} if isinstance(value, dict) else value
        return {'model.teacher': {'model': model, 'checkpoint': str(TEACHER), '_delete_': True}}

    return made


def _zero(name: str) -> Callable[[State], Any]:
    return lambda state: state[name].zero_()


def _order(state: State) -> None:
    order = torch.tensor([3, 0, 1, 2, 5, 4, 7, 6, 9, 8])
    for key in ('head.fc.weight', 'head.fc.bias'):
        state[key] = state[key][order]


def _noise(part: float) -> Callable[[State], None]:
    def add(state: State) -> None:
        generator = torch.Generator().manual_seed(0)
        for key, value in state.items():
            if value.is_floating_point() and value.ndim > 1:
                state[key] = value + part * value.std() * torch.randn(value.shape, generator=generator)

    return add


def _scaled(state: State) -> None:
    for key in ('head.fc.weight', 'head.fc.bias'):
        state[key] = state[key] * 100


def _flipped(state: State) -> None:
    state['backbone.layer3.0.conv1.weight'][0, 0, 0, 0] *= -1


def _early(folder: Path) -> dict[str, Any]:
    done = attempt('digits/resnet_teacher.py', folder / 'teacher', changed={
        'train_cfg.max_epochs': 1, 'train_dataloader.dataset.per_class': 20})  # fmt: skip
    assert done.error is None, done.said
    return {KEY: str(folder / 'teacher/epoch_1.pth')}


def _averaged(folder: Path) -> dict[str, Any]:
    """Both are there, and the file means the other one than mmengine does."""
    other = weights()
    _noise(1.0)(other)
    return {KEY: str(saved(folder / 'teacher.pth', {'state_dict': other, 'ema_state_dict': weights()}))}


def _half(folder: Path) -> dict[str, Any]:
    state = {key: value for key, value in weights().items() if not key.startswith('backbone.layer4')}
    return {KEY: str(saved(folder / 'teacher.pth', {'state_dict': state}))}


def _exchanged(folder: Path) -> dict[str, Any]:
    """Between the two halves of a run."""
    done = attempt('kd_resnet.py', folder / 'run', changed={'param_scheduler.total_steps': 2})
    assert done.error is None, done.said
    (folder / 'run/epoch_2.pth').unlink()
    return {**_file(_noise(0.01))(folder), 'resumed': str(folder / 'run/epoch_1.pth')}


def _resized(*loaders: str) -> Callable[[Path], dict[str, Any]]:
    """Images half as large."""

    def made(folder: Path) -> dict[str, Any]:
        pipeline = [{'type': 'Resize', 'scale': 14}, {'type': 'PackInputs'}]
        return {f'{loader}_dataloader.dataset.pipeline': pipeline for loader in loaders}

    return made


@TRANSFORMS.register_module()
class InRed:
    """The digit in the last channel of a BGR image, its inverse in the first."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        image = results['img']
        results['img'] = np.concatenate([255 - image, np.zeros_like(image), image], axis=2)
        return results


def _coloured(to_rgb: bool) -> Callable[[Path], dict[str, Any]]:
    """A teacher that looks at red alone, told or not told that images come as BGR."""

    def made(folder: Path) -> dict[str, Any]:
        state = weights()
        first = state['backbone.conv1.weight']
        state['backbone.conv1.weight'] = torch.cat([first, torch.zeros_like(first), torch.zeros_like(first)], 1)
        given = {'num_classes': 10, 'mean': [33.3] * 3, 'std': [78.6] * 3, 'to_rgb': False}
        changed = _network(backbone={'in_channels': 3}, data_preprocessor={**given, 'to_rgb': to_rgb})(folder)
        changed['model.teacher']['checkpoint'] = str(saved(folder / 'teacher.pth', {'state_dict': state}))
        pipeline = [{'type': 'InRed'}, {'type': 'PackInputs'}]
        images = {f'{name}_dataloader.dataset.pipeline': pipeline for name in ('train', 'val')}
        return {**changed, **images, 'data_preprocessor': given, 'model.backbone.in_channels': 3}

    return made


def _stale(folder: Path) -> dict[str, Any]:
    """Behind transforms that leave `img_shape` as it was, a padding that the teacher alone knows."""
    given = {'data_preprocessor': {'mean': [33.3], 'std': [78.6], 'pad_value': 77.0}}
    pipeline = [
        {'type': 'torchvision/ToTensor'},
        {'type': 'torchvision/RandomCrop', 'size': 24},
        {'type': 'PackInputs'},
    ]
    return {**_network(**given)(folder), 'train_dataloader.dataset.pipeline': pipeline}


def _watch(shown: list[bool]) -> Callable[[Any], None]:
    """Keeps whether the teacher is shown padding."""

    def watch(runner: Any) -> None:
        teacher = runner.model.distill.teachers['teacher']
        images = teacher.images

        def kept(*args: Any) -> Any:
            made = images(*args)
            shown.append(bool((made == 77.0).any()))
            return made

        teacher.images = kept

    return watch


WAYS = [
    Way('a tensor of zeros', _file(_zero('backbone.layer3.1.bn1.weight')), 'accuracy'),
    Way('another normalisation', _network(data_preprocessor={'mean': [0.0], 'std': [1.0]}), 'accuracy'),
    Way('no normalisation', _network(data_preprocessor={'mean': None, 'std': None}), 'refused'),
    Way('another order of classes, named in the file', _file(_order, meta={'classes': [*'3012547698']}), 'refused'),
    Way('another order of classes, named nowhere', _file(_order), 'accuracy'),
    Way('inverted images (255 - x), as of another reader', _network(
        data_preprocessor={'mean': [221.7], 'std': [-78.6]}), 'accuracy'),
    Way('blue for red (BGR)', _coloured(to_rgb=False), 'accuracy'),
    Way('stale image shapes, with padding of its own', _stale, 'cannot happen',
        'what is padding is read off the images, not off img_shape'),
    Way('images of another size, everywhere', _resized('train', 'val'), 'accuracy'),
    Way('images of another size, in training only', _resized('train'), 'not found',
        'the accuracy is that on validation images; nobody knows which size was meant'),
    Way("another epoch's file", _early, 'accuracy'),
    Way('averaged and plain weights mixed up', _averaged, 'told'),
    Way('half of the layers in the file', _half, 'refused'),
    Way('half of the layers in the file, and allowed', lambda folder: {
        **_half(folder), 'model.teacher.allow_missing': ['backbone.layer4']}, 'accuracy'),
    Way('another stride', _network(backbone={'strides': (1, 1, 2, 2)}), 'accuracy'),
    Way('dilated convolutions', _network(backbone={'dilations': (1, 2, 2, 2)}), 'accuracy'),
    Way('another number of classes', _network(head={'num_classes': 9}), 'refused'),
    Way('random weights, saved as a checkpoint', _file(lambda state: [
        value.normal_(0, 0.02) for value in state.values() if value.ndim > 1]), 'accuracy'),
    Way('statistics of batch norms that were never trained', _file(lambda state: [
        value.fill_(float('var' in key)) for key, value in state.items() if 'running' in key]), 'accuracy'),
    Way('exchanged while the run was stopped', _exchanged, 'told'),
    Way('weights that are not finite', _file(lambda state: state['head.fc.bias'].fill_(torch.inf)), 'refused'),
    Way('class scores a hundred times as large', _file(_scaled), 'not found',
        'the accuracy stays; tools/diagnose.py compares the scales of both sides, and names it'),
    Way('the sign of a single weight', _file(_flipped), 'not found',
        'the accuracy stays, and so does what is taught, nearly'),
]  # fmt: skip


def cases() -> Iterator[Case]:
    """One for each way, and the right teacher."""
    right = Way('nothing: the right teacher', lambda folder: {}, 'not found')
    for way in [right, Way('nothing: red is red', _coloured(to_rgb=True), 'not found'), *WAYS]:
        yield Case(way.what, functools.partial(run, way))


def run(way: Way, folder: Path) -> dict[str, Any]:
    """Train a student of it, and look at what was said before the first step."""
    changed = way.changed(folder)
    more = ['--resume', changed.pop('resumed')] if 'resumed' in changed else []
    shown: list[bool] = []
    watch = _watch(shown) if way.expected == 'cannot happen' else None
    done = attempt('kd_resnet.py', folder / 'run', *more, hook=watch, changed={**changed, **_FINAL})
    found, how = seen(done)
    if watch and found == 'not found' and shown and not any(shown):
        found = 'cannot happen'
    verdict = (
        'fine' if found == way.expected and not (found == 'refused' and done.updates) else f'expected {way.expected}'
    )
    how = shortened((how or way.why).replace(str(folder), '…'))
    return {'verdict': verdict, 'found': found, 'how': how, 'stage': done.stage}


_FINAL = {'train_cfg.val_interval': 9}
_TOLD = ('are not those that this run was begun with', 'and under ema_state_dict')


def seen(done: Attempt) -> tuple[str, str]:
    """What a user can see, and the words."""
    if done.error is not None:
        return 'refused', done.said
    lines = done.log.splitlines()
    told = next((line for line in lines for words in _TOLD if words in line), None)
    if told:
        return 'told', re.sub(r'^.*? - mmengine - (INFO|WARNING) - ', '', told)
    found = re.search(r'Before training, on the validation data: teacher/accuracy/top1: ([\d.]+)', done.log)
    assert found, done.log[-2000:]
    if float(found[1]) <= RIGHT - SEEN:
        return 'accuracy', f'{float(found[1]):.0f} %, the right one has {RIGHT:.0f} %'
    return 'not found', ''
