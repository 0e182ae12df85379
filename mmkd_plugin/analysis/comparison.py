"""Teachers, plain and distilled student on the same images: their predictions and feature maps."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor
from torch.nn.functional import interpolate

from ..distillation.read_losses import loss_class, read_on
from ..files.checkpoint import read_checkpoint, state_dict_of
from ..files.fitting import load_exactly
from ..networks import Tap, Taps
from ..teachers import Frozen, build_source, plain_student

#: How the channels of a map become one, by mmengine's names.
REDUCTIONS = {'squeeze_mean': 'mean of channels', 'select_max': 'channel with the largest sum'}


@dataclass
class Contestant:
    """One model of a comparison: what it is called, and the teacher's name if it is one."""

    caption: str
    model: Any
    teacher: str | None = None


class MapPair(NamedTuple):
    """Where a feature map is read in the students, and where in which teacher."""

    student: Tap
    teacher: Tap
    of: str

    def tap(self, contestant: Contestant) -> Tap | None:
        """Where it is read in a model; None for another teacher."""
        if contestant.teacher is None:
            return self.student
        return self.teacher if contestant.teacher == self.of else None


class View(NamedTuple):
    """What a model makes of one image: data sample with predictions, tapped values, size (H, W) after padding."""

    sample: Any
    values: dict[Tap, Tensor]
    padded: tuple[int, int]


def build_contestants(config: Config, checkpoint: str, plain: str | None = None) -> list[Contestant]:
    """The models with their weights, always in this order: teachers, plain student, distilled student.

    Args:
        config: A distilled config.
        checkpoint: Of the distilled student.
        plain: Of the same student trained without a teacher; None leaves it out.

    Raises:
        ValueError: If the config is not distilled, or weights do not fit.
        FileNotFoundError: If a checkpoint does not exist.
    """
    cfg = config.get('model') or {}
    if 'Distilled' not in (cfg.get('type'), getattr(cfg.get('type'), '__name__', '')):
        raise ValueError(
            f"the config's model is {cfg.get('type')!r}, expected type='Distilled': give the config that the student "
            'was distilled with, which also names its teacher'
        )
    student = plain_student(cfg)
    if 'data_preprocessor' in config:
        student.setdefault('data_preprocessor', config.data_preprocessor)
    found = []
    for caption, path in (('plain student', plain), ('distilled student', checkpoint)):
        if path is not None:
            state = state_dict_of(read_checkpoint(_existing(path, caption)))
            found.append(Contestant(caption, MODELS.build(copy.deepcopy(student))))
            load_exactly(found[-1].model, state, path)
    teachers = []
    for name, spec in _sources(config).items():
        source = build_source(spec, name, found[-1].model)
        if not isinstance(source, Frozen):  # the student itself, or no network
            continue
        if not isinstance(source.model, BaseModel):
            raise ValueError(
                f"{name} is a {type(source.model).__name__} and makes no predictions to draw, expected mmengine's "
                'BaseModel, such as a classifier of mmpretrain or a detector of mmdet'
            )
        source.load()
        caption = name if 'teacher' in name else f'teacher {name}'
        teachers.append(Contestant(caption, source.model, name))
    return teachers + found


def _existing(path: str, caption: str) -> str:
    if '://' not in path and not Path(path).expanduser().is_file():
        raise FileNotFoundError(
            f"checkpoint '{path}' of the {caption} does not exist (looked at {Path(path).expanduser().absolute()}); "
            'training writes work_dirs/CONFIG/epoch_N.pth'
        )
    return path


def read_map_pairs(taps: Sequence[str] | None, config: Config, teachers: Sequence[str]) -> list[MapPair]:
    """Where feature maps are to be read.

    Args:
        taps: ``'neck[1]'``, or ``'backbone.layer3=backbone.layer4'`` where the teacher's differs from the
            student's; None is everywhere that the config's losses read.
        config: The distilled config.
        teachers: Their names.

    Raises:
        ValueError: If a tap does not follow the syntax.
    """
    if taps is not None:
        sides = [text.partition('=')[::2] for text in taps]
        pairs = [MapPair(Tap.parse(s), Tap.parse(t or s), name) for s, t in sides for name in teachers]
    else:
        names = list(_sources(config))
        pairs = []
        for name, loss in config.model.losses.items():
            if loss is None or loss.get('learner', 'student') != 'student':
                continue
            read = loss_class(name, loss.type).sides
            on = read_on(loss.on, name, names, loss.get('teacher'), sides=read)
            for source in (side for side in on if side in teachers):
                pairs += [MapPair(*taps, source) for taps in zip(on.get('student', ()), on[source], strict=False)]
    return list(dict.fromkeys(pairs))


def _sources(config: Config) -> dict[str, Any]:
    """What a distilled config says of its teachers, by name."""
    return dict(config.model.get('teachers') or {'teacher': config.model.get('teacher')})


@torch.no_grad()
def look(contestant: Contestant, batch: Mapping[str, Any], pairs: Sequence[MapPair]) -> View:
    """A model on one image, as a whole and with its own data preprocessor.

    Args:
        contestant: The model, in evaluation mode.
        batch: One image, as the data loader gives it; not changed.
        pairs: What to tap; values of modules that do not run in predictions are not there.

    Raises:
        ValueError: If a tap names no module.
        TypeError: If a tap meets no tensor.
    """
    taps = [tap for pair in pairs if (tap := pair.tap(contestant))]
    data = contestant.model.data_preprocessor(copy.deepcopy(batch), False)
    # cloned, because a later module may overwrite it
    recorded = Taps(contestant.model, taps, contestant.caption, clone=taps)
    with recorded.recording():
        sample = contestant.model(**data, mode='predict')[0]
    height, width = data['inputs'].shape[-2:]
    values = {tap: value for tap in taps if (value := recorded.peek(tap)) is not None}
    return View(sample.cpu(), values, (height, width))


def is_map(tap: Tap, value: Tensor | None) -> bool:
    """Whether a tapped value is a feature map of the image (a RoI head's are not), larger than a pixel."""
    if value is None or f'{tap.path}.'.startswith('roi_head.'):
        return False
    return value.ndim == 4 and len(value) == 1 and value[0, 0].numel() > 1


def no_map(tap: Tap, value: Tensor | None, caption: str) -> str:
    """What to tell about a tap that is no feature map."""
    what = 'does not run when it predicts' if value is None else f'has the shape {tuple(value.shape)}'
    return (
        f"tap '{tap}' of the {caption} {what}, expected a feature map of the image: (1, channels, height, width) and "
        "not in a RoI head. Tap the backbone or the neck, as in 'backbone.layer3' or 'neck[1]'; "
        'tools/list_modules.py CONFIG lists all modules with their shapes'
    )


def reduce_map(value: Tensor, padded: tuple[int, int], size: tuple[int, int], reduction: str) -> Tensor:
    """A feature map as one channel over the image, without what lies over padding.

    Args:
        value: (1, C, h, w), over the padded image.
        padded: Height and width of the padded image.
        size: Height and width (H, W) of the image at its top left.
        reduction: One of :data:`REDUCTIONS`.

    Returns:
        (H, W).
    """
    channels = value[0].float().cpu()
    one = channels.mean(0) if reduction == 'squeeze_mean' else channels[channels.sum((1, 2)).argmax()]
    return interpolate(one[None, None], padded, mode='bilinear')[0, 0, : size[0], : size[1]]
