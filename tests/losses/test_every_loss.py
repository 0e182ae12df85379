"""What every distillation loss keeps to, whatever it computes.

Every loss that `mmkd_plugin.losses` exports is looked up in `SETTINGS`; one that is not there
fails the collection of this file, so that no loss escapes these tests.
"""

import copy
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import Tensor, nn

from mmkd_plugin import losses
from mmkd_plugin.facts import TapShape
from mmkd_plugin.losses import DistillLoss
from mmkd_plugin.networks import Tap
from mmkd_plugin.registration import BASES

N, CLASSES = 4, 5
SIDES = ('student', 'teacher')
LOW_PRECISION = [torch.bfloat16, torch.float16]

MakeTaps = Callable[[torch.Generator], list[Tensor]]


def random(*shapes: Sequence[int]) -> MakeTaps:
    """Makes normal taps of the given shapes."""
    return lambda generator: [3 * torch.randn(*shape, generator=generator) for shape in shapes]


class Setting(NamedTuple):
    """How to try a loss.

    Attributes:
        arguments: For the constructor. The entry under the loss's own name has all of them except ``loss_weight``,
            and not the defaults.
        student: Makes the student's taps: one, or several for a loss that relates layers.
        teacher: The same for the teacher; one for each of several teachers.
        zero_at_equality: Equal taps of student and teacher give 0.
        batch_mean: The value is a mean over samples, so that a batch given twice has the same.
        by_sample: And each sample has its own, whatever else is in the batch.
        smooth: Arguments with which the gradient is that of the value: nothing inside is taken as constant. None where
            something always is; the loss's own tests have its gradient.
        signed: Arguments that may be negative.
        negative: The value may be below 0.
        any_order: The value does not depend on the order of the samples.
        uncounted: Arguments whose defaults give the same value at first, or none at all.
        shape: What connectors are built from, of a tap.
        any_shape: What a sample is may have any shape.
        flat: How flat the value is at equality, in float64: an epsilon in the formula may leave a slope.
        uses: Arguments that name a loss which it uses, and the case that is this loss.
        apart: Arguments that go together with none of ``arguments``; a further entry tries them.
        prepare: What the loss is told before training.
        constant: Buffers that training leaves as they are, without the names of the modules they belong to.
        older: The teacher may know fewer classes.
        rounding: How much connectors in half precision may change the value, relatively; more where it chooses between
            near equals.
        zero: Whole numbers that may be 0.
    """

    arguments: dict[str, Any]
    student: MakeTaps
    teacher: MakeTaps
    zero_at_equality: bool = True
    batch_mean: bool = True
    by_sample: bool = True
    smooth: dict[str, Any] | None = {}
    signed: tuple[str, ...] = ()
    negative: bool = False
    any_order: bool = True
    uncounted: tuple[str, ...] = ()
    shape: Callable[[Tensor], Any] = lambda tap: tap.shape
    any_shape: bool = False
    flat: float = 1e-12
    uses: dict[str, str] = {}
    apart: tuple[str, ...] = ()
    prepare: Callable[[DistillLoss], None] | None = None
    constant: tuple[str, ...] = ()
    older: bool = False
    rounding: float = 0.05
    zero: tuple[str, ...] = ()


#: What a loss may need besides taps, for so many samples; labels are classes 0 to 2.
NEEDS: dict[str, Callable[[int], Any]] = {
    'labels': lambda n: torch.arange(n) % 3,
    'sample_idx': lambda n: 7 * torch.arange(n) + 3,
    'epoch': lambda n: 2,
    'padded_boxes': lambda n: (
        torch.tensor([[5.0, 3.0, 20.0, 30.0], [8.0, 8.0, 16.0, 16.0]]) + torch.arange(n)[:, None, None]
    ),
    'input_size': lambda n: (32, 36),
    'assignments': lambda n: (
        torch.arange(n) % 4,
        3 - torch.arange(n) % 3,
    ),  # of two levels of one place; 3: background
    'image_sizes': lambda n: torch.tensor([[32, 30]]).repeat(n, 1) - torch.arange(n)[:, None],
}
LOGITS = random((N, CLASSES))
VECTORS, WIDER_VECTORS = random((N, 6)), random((N, 8))
STUDENT_MAP, TEACHER_MAP = random((N, 3, 8, 8)), random((N, 5, 4, 4))
FLAT_MAP, FLAT_TEACHER_MAP = random((N, 9, 1, 2)), random((N, 12, 1, 2))
SMALL_MAP, ODD_MAP = random((N, 3, 3, 5)), random((N, 3, 4, 2))
STUDENT_MAPS = random((N, 3, 8, 8), (N, 4, 4, 4), (N, 6))
TEACHER_MAPS = random((N, 5, 8, 8), (N, 6, 4, 4), (N, 7))
THREE_CLASSES, THREE_TEACHERS = random((N, 3)), random((N, 8), (N, 7), (N, 8))
COSTS = [[0.0, 1.0, 0.2], [1.0, 0.0, 0.7], [0.2, 0.7, 0.0]]
STUDENT_STAGES, TEACHER_STAGES = random((N, 3, 8, 8), (N, 4, 4, 4)), random((N, 5, 8, 8), (N, 6, 4, 4))


class NormedBlock(nn.Sequential):
    """A network whose last ReLU has batch norms before it."""

    def __init__(self, channels: int) -> None:
        norms = {f'norm{number}': nn.BatchNorm2d(channels) for number in (1, 2)}
        for number, norm in enumerate(norms.values()):
            nn.init.constant_(norm.weight, -0.5 - number)
            nn.init.constant_(norm.bias, 0.3)
        super().__init__(OrderedDict({**norms, 'relu': nn.ReLU()}))

    @classmethod
    def before_relu(cls, tap: Tensor) -> TapShape:
        """The shape of a tap there."""
        return TapShape.of(tap, Tap.parse('relu:input'), cls(tap.shape[1]))


STUDENT_PAIRS = random((N, 3, 8, 8), (N, 3, 4, 4), (N, 6), (N, 6))
TEACHER_PAIRS = random((N, 5, 8, 8), (N, 5, 4, 4), (N, 7), (N, 7))
THREE_MAPS = random((N, 3, 8, 8), (N, 6, 4, 4), (N, 9, 1, 2))
OTHER_MAPS, WIDER_MAPS = (
    random((N, 3, 5, 7), (N, 6, 4, 6), (N, 9, 2, 2)),
    random((N, 5, 8, 8), (N, 4, 4, 4), (N, 7, 2, 1)),
)


#: What a dense head of three classes puts out, on two levels of one place each.
TWO_LEVELS = random((N, 3, 1, 1), (N, 3, 1, 1))
SCORES_AND_SIDES = random((N, 3, 1, 1), (N, 3, 1, 1), (N, 20, 1, 1), (N, 20, 1, 1))
SCORES_AND_NUMBERS = random((N, 3, 1, 1), (N, 3, 1, 1), (N, 4, 1, 1), (N, 4, 1, 1))


class Anchors:
    """Of these levels: what a grid tells."""

    classes, bins, strides = 3, 0, ((8.0, 8.0), (16.0, 16.0))

    def decode(self, numbers: Tensor, places: Tensor, strides: Tensor) -> Tensor:
        center = (places[:, :2] + places[:, 2:]) / 2
        distances = numbers.sigmoid() * strides[:, None]
        return torch.cat([center - distances[:, :2], center + distances[:, 2:]], 1)

    def places(self, sizes: Any, like: Tensor) -> list[Tensor]:
        return self.anchors(sizes, like)

    def anchors(self, sizes: Any, like: Tensor) -> list[Tensor]:
        return [like.new_tensor([[-8.0, -8.0, 12.0, 30.0]]), like.new_tensor([[4.0, 2.0, 40.0, 60.0]])]


class Samples:
    """Training data as far as losses ask: 24,600 samples of three classes."""

    def __len__(self) -> int:
        return 24600

    def labels(self) -> Tensor:
        return torch.arange(len(self)) % 3


def remember(loss: Any) -> None:
    """Told of the training data, and begun with a batch."""
    loss.prepare(SimpleNamespace(data=Samples()))
    layers = loss.embed_student, loss.embed_teacher
    loss(*(torch.randn(40, layer.in_features) for layer in layers), torch.arange(1, 41))


def stir(loss: Any) -> None:
    """Layers that begin with zeros hide those before them."""
    for parameter in loss.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)


REMEMBERS: dict[str, Any] = {
    'zero_at_equality': False,
    'prepare': remember,
    'constant': ('normalizers', 'digest', 'classes', 'order', 'starts', 'sizes'),
}
#: By the name of the loss. What behaves otherwise with other arguments has further entries, 'Name: what is special'.
SETTINGS = {
    # logits
    'KDLoss': Setting({'temperature': 2.0, 'standardize': True}, LOGITS, LOGITS),
    'KDLoss: plain': Setting({'temperature': 2.0}, LOGITS, LOGITS),
    'DKDLoss': Setting({'alpha': 0.5, 'beta': 2.0, 'temperature': 3.0, 'standardize': True}, LOGITS, LOGITS),
    'DKDLoss: plain': Setting({'alpha': 0.5, 'beta': 2.0, 'temperature': 3.0}, LOGITS, LOGITS),
    'DISTLoss': Setting({'beta': 0.5, 'gamma': 2.0, 'temperature': 3.0, 'gather': True}, LOGITS, LOGITS,
                        by_sample=False),
    'LwFLoss': Setting({'temperature': 3.0, 'form': 'kl'}, random((N, 7)), LOGITS, older=True),
    'LwFLoss: cross-entropy': Setting({}, random((N, 7)), LOGITS, zero_at_equality=False, older=True),
    'ILODLoss': Setting({'share': 0.75, 'background': False}, random((N, 6), (N, 20)), random((N, 4), (N, 12)),
                        by_sample=False),
    'ILODLoss: all RoIs': Setting({'share': 1.0}, random((N, 6), (N, 20)), random((N, 4), (N, 12))),
    'ILODLoss: shared boxes': Setting({}, random((N, 6), (N, 4)), random((N, 4), (N, 4)), by_sample=False),
    # maps: hints, attention, selectivity
    'FitNetLoss': Setting({'regressor': 'conv_bn'}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False),
    'FitNetLoss: vectors': Setting({}, VECTORS, WIDER_VECTORS, zero_at_equality=False),
    'FitNetLoss: without norm': Setting({'regressor': 'conv'}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False),
    'FitNetLoss: without connector': Setting({'regressor': 'identity'}, SMALL_MAP, ODD_MAP),
    'ATLoss': Setting({'p': 3, 'squared': False}, STUDENT_MAP, TEACHER_MAP),
    'ATLoss: squared': Setting({}, SMALL_MAP, ODD_MAP),
    'ATLoss: p = 1': Setting({'p': 1}, SMALL_MAP, SMALL_MAP),
    'NSTLoss': Setting({'kernel': 'gaussian', 'variance': 'batch'}, STUDENT_MAP, TEACHER_MAP,
                       by_sample=False, smooth={'variance': 0.5}),
    'NSTLoss: by image': Setting({'kernel': 'gaussian'}, FLAT_MAP, FLAT_TEACHER_MAP, smooth={'variance': 0.5}),
    'NSTLoss: linear': Setting({'kernel': 'linear'}, SMALL_MAP, ODD_MAP),
    'NSTLoss: few channels': Setting({}, STUDENT_MAP, TEACHER_MAP),
    'NSTLoss: many channels': Setting({}, FLAT_MAP, FLAT_TEACHER_MAP),
    'ReviewKDLoss': Setting({'mid_channels': 8}, STUDENT_MAPS, TEACHER_MAPS, zero_at_equality=False),
    'ReviewKDLoss: other sizes': Setting({}, STUDENT_MAPS, random((N, 5, 5, 7), (N, 6, 5, 4), (N, 7, 1, 1)),
                                         zero_at_equality=False),
    # maps: margins, information, attention over layers
    'OFDLoss': Setting({'norms': ['norm1', 'norm1']}, STUDENT_STAGES, TEACHER_STAGES, zero_at_equality=False,
                       constant=('margin',), shape=NormedBlock.before_relu),
    'OFDLoss: margins found': Setting({}, STUDENT_STAGES, random((N, 5, 5, 7), (N, 6, 5, 4)), zero_at_equality=False,
                                      constant=('margin',), shape=NormedBlock.before_relu),
    'SemCKDLoss': Setting({'batch_size': 8}, STUDENT_STAGES, TEACHER_STAGES, zero_at_equality=False,
                          batch_mean=False, by_sample=False, any_order=False, uncounted=('batch_size',)),
    'SemCKDLoss: more teacher stages': Setting({'batch_size': 9}, random((N, 3, 6, 5)), TEACHER_STAGES,
                                               zero_at_equality=False, batch_mean=False, by_sample=False,
                                               any_order=False, uncounted=('batch_size',)),
    'VIDLoss': Setting({'init_variance': 2.0, 'eps': 1e-3}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False,
                       uncounted=('eps',)),
    'VIDLoss: below zero': Setting({'init_variance': 0.5}, SMALL_MAP, ODD_MAP, zero_at_equality=False, negative=True),

    # relations between samples
    'RKDLoss': Setting({'distance_weight': 2.0, 'angle_weight': 3.0, 'normalize': True, 'gather': True},
                       STUDENT_MAP, TEACHER_MAP, by_sample=False),
    'RKDLoss: distances': Setting({'angle_weight': 0.0}, VECTORS, WIDER_VECTORS, by_sample=False),
    'RKDLoss: angles': Setting({'distance_weight': 0.0}, VECTORS, WIDER_VECTORS, by_sample=False),
    'IRGLoss': Setting({'vertex_weight': 0.5, 'form': 'mean', 'constant_max': True, 'gather': True},
                       STUDENT_MAP, SMALL_MAP, by_sample=False, smooth={'constant_max': False}),
    'IRGLoss: edges': Setting({}, VECTORS, WIDER_VECTORS, batch_mean=False, by_sample=False),
    'IRGTransformLoss': Setting({'form': 'mean', 'constant_max': True, 'gather': True}, STUDENT_PAIRS, TEACHER_PAIRS,
                                by_sample=False, smooth={'constant_max': False}),
    'IRGTransformLoss: as published': Setting({}, STUDENT_PAIRS, TEACHER_PAIRS, by_sample=False),
    'PKTLoss': Setting({'gather': True}, VECTORS, WIDER_VECTORS, batch_mean=False, by_sample=False, flat=1e-7),
    'PKTLoss: maps': Setting({}, STUDENT_MAP, TEACHER_MAP, batch_mean=False, by_sample=False, flat=1e-7),
    'SPLoss': Setting({'gather': True}, STUDENT_MAP, TEACHER_MAP, batch_mean=False, by_sample=False, any_shape=True),
    'SPLoss: a map and vectors': Setting({}, SMALL_MAP, VECTORS, batch_mean=False, by_sample=False, any_shape=True),
    'CCLoss': Setting({'form': 'embedded', 'gamma': 0.7, 'order': 3, 'embed_dim': 7, 'gather': True}, VECTORS,
                      WIDER_VECTORS, zero_at_equality=False, batch_mean=False, by_sample=False, any_order=False,
                      uncounted=('gamma', 'order')),
    'CCLoss: embedded maps': Setting({'form': 'embedded'}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False,
                                     batch_mean=False, by_sample=False, any_order=False),
    'CCLoss: kernel': Setting({'gamma': 0.7, 'order': 3}, VECTORS, WIDER_VECTORS, by_sample=False),
    'CCLoss: kernel of maps': Setting({}, STUDENT_MAP, TEACHER_MAP, by_sample=False),
    'LPLoss': Setting({'k': 2, 'sigma2': 40.0, 'gather': True}, VECTORS, WIDER_VECTORS, zero_at_equality=False,
                      batch_mean=False, by_sample=False),
    'LPLoss: maps, mean distance': Setting({'sigma2': 'mean'}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False,
                                           batch_mean=False, by_sample=False),

    # relations between layers
    'FSPLoss': Setting({'pool': 'average', 'connector': 'conv_bn'}, THREE_MAPS, OTHER_MAPS,
                       zero_at_equality=False),
    'FSPLoss: other channels': Setting({'connector': 'conv_bn'}, THREE_MAPS, WIDER_MAPS, zero_at_equality=False),
    'FSPLoss: without connector': Setting({}, THREE_MAPS, OTHER_MAPS),
    'KDSVDLoss': Setting({'vectors': 2, 'connector': 'conv_bn'}, THREE_MAPS, OTHER_MAPS,
                         zero_at_equality=False),
    'KDSVDLoss: other channels': Setting({'connector': 'conv_bn'}, THREE_MAPS, WIDER_MAPS,
                                         zero_at_equality=False),
    'KDSVDLoss: without connector': Setting({}, THREE_MAPS, OTHER_MAPS),
    'KDSVDLoss: three vectors': Setting({'vectors': 3}, THREE_MAPS, OTHER_MAPS),

    # trained in stages
    'ABLoss': Setting({'margin': 0.5, 'skip_equal': True}, random((N, 3, 8, 8), (N, 6, 4, 4)), TEACHER_STAGES,
                      zero_at_equality=False),
    'ABLoss: all connected': Setting({}, random((N, 3, 8, 8), (N, 6, 5, 3)), TEACHER_STAGES, zero_at_equality=False),
    'ABLoss: none connected': Setting({'skip_equal': True}, random((N, 5, 4, 8), (N, 6, 4, 4)), TEACHER_STAGES,
                                      zero_at_equality=False),
    'FTLoss': Setting({'paraphraser': 'loss_other', 'factor': 'attention', 'norm': True}, STUDENT_MAP, TEACHER_MAP,
                      zero_at_equality=False, uses={'paraphraser': 'ParaphraserLoss'}),
    'FTLoss: vector': Setting({}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False,
                              uses={'paraphraser': 'ParaphraserLoss'}),
    'ParaphraserLoss': Setting({'rate': 0.7, 'distance': 'l1'}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False),
    'ParaphraserLoss: squares': Setting({}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False),
    'MHGDHeadsLoss': Setting({'heads': 3, 'head_drop': 0.0, 'gather': True}, THREE_MAPS, OTHER_MAPS,
                             zero_at_equality=False, by_sample=False),
    'MHGDHeadsLoss: other channels': Setting({'head_drop': 0.0}, THREE_MAPS, WIDER_MAPS, zero_at_equality=False,
                                             by_sample=False),
    'MHGDLoss': Setting({'heads': 'loss_other', 'connector': 'conv_bn', 'gather': True}, THREE_MAPS, OTHER_MAPS,
                        zero_at_equality=False, by_sample=False, uses={'heads': 'MHGDHeadsLoss'}, rounding=0.25),
    'MHGDLoss: other channels': Setting({'connector': 'conv_bn'}, THREE_MAPS, WIDER_MAPS, zero_at_equality=False,
                                        by_sample=False, uses={'heads': 'MHGDHeadsLoss: other channels'},
                                        rounding=0.25),
    'MHGDLoss: without connector': Setting({}, THREE_MAPS, OTHER_MAPS, by_sample=False,
                                           uses={'heads': 'MHGDHeadsLoss'}),

    # memory
    'CRDLoss': Setting({'num_negatives': 700, 'temperature': 0.2, 'momentum': 0.8, 'embedding_dim': 6,
                        'positive': 'relax'}, VECTORS, WIDER_VECTORS, **REMEMBERS, apart=('queue',)),
    'CRDLoss: all negatives': Setting({'num_negatives': 16400, 'embedding_dim': 5}, STUDENT_MAP, WIDER_VECTORS,
                                      **REMEMBERS),
    'CRDLoss: queue': Setting({'queue': 40, 'num_negatives': 30, 'embedding_dim': 5}, VECTORS, TEACHER_MAP,
                              **REMEMBERS, smooth=None),
    # several teachers, auxiliary teachers
    'EnsembleKDLoss': Setting({'temperature': 2.0, 'weights': {'teacher0': 1.0, 'teacher1': 3.0}}, LOGITS,
                              random((N, CLASSES), (N, CLASSES)), constant=('parts',)),
    'ConfidentEnsembleKDLoss': Setting({'temperature': 2.0, 'weights': {'teacher0': 1.0, 'teacher1': 3.0}}, LOGITS,
                                       random((N, CLASSES), (N, CLASSES)), constant=('parts',)),
    'FlowLoss': Setting({'gather': True}, VECTORS, WIDER_VECTORS, batch_mean=False, by_sample=False),
    'FlowLoss: maps': Setting({}, STUDENT_MAP, TEACHER_MAP, batch_mean=False, by_sample=False),
    'LogitsGraphLoss': Setting({'temperature': 2.0, 'weights': {'teacher0': 1.0, 'teacher1': 3.0}, 'cost': COSTS,
                                'epsilon': 0.5, 'iterations': 3}, THREE_CLASSES, random((N, 3), (N, 3)),
                               constant=('parts', 'cost_matrix')),
    'LogitsGraphLoss: total variation': Setting({}, LOGITS, random((N, CLASSES), (N, CLASSES), (N, CLASSES)),
                                                constant=('parts',)),
    'LogitsGraphLoss: learned': Setting({'weights': 'learned'}, LOGITS, random((N, CLASSES), (N, CLASSES)),
                                        uncounted=('weights',)),
    'RepresentationGraphLoss': Setting({'dimension': 16, 'kernel': 'polynomial', 'gather': True,
                                        'weights': {'teacher0': 1.0, 'teacher1': 2.0, 'teacher2': 3.0}},
                                       VECTORS, THREE_TEACHERS, zero_at_equality=False, by_sample=False,
                                       constant=('parts', 'index', 'sign')),
    'RepresentationGraphLoss: learned': Setting({'weights': 'learned'}, STUDENT_MAP,
                                                random((N, 3, 3, 5), (N, 4, 2, 1), (N, 5, 1, 1)),
                                                zero_at_equality=False, by_sample=False, uncounted=('weights',),
                                                constant=('index', 'sign')),

    # detection: dense heads
    'BCKDLoss': Setting({'box_weight': 3.0, 'skip_empty': False}, SCORES_AND_NUMBERS, SCORES_AND_NUMBERS,
                        by_sample=False, smooth=None, prepare=lambda loss: setattr(loss, 'grid', Anchors()),
                        uncounted=('skip_empty',)),
    'CrossKDLoss': Setting({'cut': 2, 'boxes': 'distributions', 'beta': 1.5, 'temperature': 2.0,
                            'positions': 'confident', 'threshold': 0.7, 'box_weight': 3.0}, SCORES_AND_SIDES,
                           SCORES_AND_SIDES, by_sample=False, uncounted=('cut', 'boxes'), zero=('cut',)),
    'CrossKDLoss: scores': Setting({'boxes': 'none', 'beta': 2.0}, TWO_LEVELS, TWO_LEVELS, by_sample=False,
                                   uncounted=('boxes',)),
    'CrossKDLoss: all boxes': Setting({'positions': 'all'}, SCORES_AND_NUMBERS, SCORES_AND_NUMBERS, by_sample=False,
                                      prepare=lambda loss: setattr(loss, 'grid', Anchors())),
    'DenseKDLoss': Setting({'temperature': 2.0, 'positions': 'confident', 'threshold': 0.7, 'normalizer': 'confident'},
                           TWO_LEVELS, TWO_LEVELS, by_sample=False),
    'DenseKDLoss: all': Setting({'temperature': 3.0}, TWO_LEVELS, TWO_LEVELS, by_sample=False),
    'DenseKDLoss: positive': Setting({'positions': 'positive'}, TWO_LEVELS, TWO_LEVELS, by_sample=False),
    'LDLoss': Setting({'temperature': 4.0, 'positions': 'confident', 'threshold': 0.7, 'valuable_weight': 2.0,
                       'normalize': True}, SCORES_AND_SIDES, SCORES_AND_SIDES, by_sample=False, smooth=None,
                      prepare=lambda loss: setattr(loss, 'grid', Anchors())),
    'LDLoss: as published': Setting({}, SCORES_AND_SIDES, SCORES_AND_SIDES, batch_mean=False, by_sample=False,
                                    smooth=None),
    'LDLoss: all': Setting({'positions': 'all'}, SCORES_AND_SIDES, SCORES_AND_SIDES, batch_mean=False,
                           by_sample=False, smooth=None),
    'QFLKDLoss': Setting({'beta': 1.5, 'positions': 'confident', 'threshold': 0.7, 'normalizer': 'confident'},
                         TWO_LEVELS, TWO_LEVELS, by_sample=False),
    'QFLKDLoss: all': Setting({}, TWO_LEVELS, TWO_LEVELS, by_sample=False),
    # detection: feature maps
    'CWDLoss': Setting({'temperature': 2.0, 'normalize': True}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False,
                       by_sample=False),
    'CWDLoss: plain': Setting({'temperature': 4.0}, SMALL_MAP, ODD_MAP),
    'FGDLoss': Setting({'temperature': 0.8, 'alpha': 0.1, 'beta': 0.05, 'gamma': 0.02, 'lam': 0.03,
                        'by_image_size': True}, random((N, 6, 8, 8)), random((N, 8, 4, 5)), zero_at_equality=False,
                       prepare=stir),
    'FGDLoss: without connector': Setting({'alpha': 0.1, 'lam': 0.01}, random((N, 8, 3, 5)),
                                          random((N, 8, 4, 2)), zero_at_equality=False, prepare=stir),
    'FGDLoss: focal part': Setting({'alpha': 0.1, 'gamma': 0.01, 'lam': 0.0}, random((N, 8, 3, 5)),
                                   random((N, 8, 4, 2))),
    'MGDLoss': Setting({'mask_ratio': 0.0, 'mask': 'channels'}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False,
                       uncounted=('mask',)),
    'MGDLoss: without connector': Setting({'mask_ratio': 0.0}, SMALL_MAP, ODD_MAP, zero_at_equality=False),
    'PKDLoss': Setting({'resize': 'teacher'}, STUDENT_MAP, TEACHER_MAP, zero_at_equality=False, batch_mean=False,
                       by_sample=False),
    'PKDLoss: without connector': Setting({}, SMALL_MAP, ODD_MAP, batch_mean=False, by_sample=False),
}  # fmt: skip


def exported() -> dict[str, type[DistillLoss]]:
    items = {name: getattr(losses, name) for name in losses.__all__}
    return {
        name: item
        for name, item in items.items()
        if isinstance(item, type) and issubclass(item, DistillLoss) and item not in BASES
    }


LOSSES = exported()
NAMES = {case.split(':')[0] for case in SETTINGS}
if unlisted := sorted(LOSSES.keys() - SETTINGS.keys()):
    pytest.fail(
        f'{", ".join(unlisted)} of mmkd_plugin.losses without a contract: '
        f'add an entry to SETTINGS in {__file__}, which says how to try a loss',
        pytrace=False,
    )
if stale := sorted(NAMES - LOSSES.keys()):
    pytest.fail(
        f'{", ".join(stale)} in SETTINGS of {__file__}, but no DistillLoss in mmkd_plugin.losses.__all__: '
        'export the loss, or remove the entry',
        pytrace=False,
    )

names = pytest.mark.parametrize('name', sorted(NAMES))
cases = pytest.mark.parametrize('case', SETTINGS)
low_precision = pytest.mark.parametrize('dtype', LOW_PRECISION)


@dataclass
class Trial:
    """A loss with its connectors built, and what to call it on; the student's taps want gradients.

    Attributes:
        loss: The loss.
        taps: Those of each side, by the names of ``forward``'s first parameters.
        needs: What ``forward`` gets besides.
    """

    loss: DistillLoss
    taps: dict[str, list[Tensor]]
    needs: dict[str, Any]

    @property
    def student(self) -> list[Tensor]:
        return self.taps.get('student', [])

    @property
    def teacher(self) -> list[Tensor]:
        """The taps that are taken as constant."""
        return [tap for side, taps in self.taps.items() if side != 'student' for tap in taps]

    @property
    def taught(self) -> list[Tensor]:
        """The student's taps that get gradients: LD's scores, which come first, do not."""
        return self.student[len(self.student) // 2 :] if type(self.loss).__name__ == 'LDLoss' else self.student

    @property
    def learns(self) -> bool:
        """Whether there are connectors."""
        return bool(list(self.loss.parameters()))

    def sides(self, of: Callable[[Tensor], Any]) -> list[Any]:
        """What ``forward`` and ``build_connectors`` get, with something of each tap in its place."""
        several = self.loss.relates_layers
        return [
            {f'teacher{number}': of(tap) for number, tap in enumerate(taps)} if side == 'teachers'
            else [of(tap) for tap in taps] if several else of(taps[0])
            for side, taps in self.taps.items()
        ]  # fmt: skip

    def value(self, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Tensor:
        """The loss, with a change made to every tensor that it gets."""

        def changed(need: Any) -> Any:
            if isinstance(need, tuple):
                return tuple(map(changed, need))
            return change(need) if isinstance(need, Tensor) else need

        needs = {key: changed(need) for key, need in self.needs.items()}
        return self.called(self.sides(change), needs)

    def called(self, given: Sequence[Any], needs: dict[str, Any], **parameters: Tensor) -> Tensor:
        """The loss in the state that it is in, which it does not leave; what it draws is the same each time."""
        torch.manual_seed(0)
        buffers = {name: buffer.clone() for name, buffer in self.loss.named_buffers()}
        value = torch.func.functional_call(self.loss, {**buffers, **parameters}, tuple(given), needs)
        assert isinstance(value, Tensor)
        return value

    def floats(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        """The loss, with a change made to taps only."""
        return self.value(lambda tensor: change(tensor) if tensor.is_floating_point() else tensor)

    def double(self) -> 'Trial':
        """In float64."""
        taps = {side: [tap.detach().double() for tap in taps] for side, taps in self.taps.items()}
        other = Trial(copy.deepcopy(self.loss).double(), taps, self.needs)
        for argument in other.loss.uses:
            other.loss.used(argument).double()
        return other.wanting()

    def wanting(self) -> 'Trial':
        for tap in self.student:
            tap.requires_grad_()
        return self

    def changed(self, **changes: Callable[[Tensor], Tensor]) -> 'Trial':
        """With other taps on the sides that are named; ``teacher`` names ``teachers`` as well."""
        taps = {
            side: [changes.get(side.removesuffix('s'), torch.clone)(tap.detach()) for tap in taps]
            for side, taps in self.taps.items()
        }
        return Trial(self.loss, taps, self.needs).wanting()

    def gradients(self) -> list[Tensor]:
        """Those of the student's taps and of the connectors."""
        gradients = [tensor.grad for tensor in (*self.taught, *self.loss.parameters())]
        assert None not in gradients
        return [gradient for gradient in gradients if gradient is not None]

    def backward(self, value: Tensor) -> list[Tensor]:
        """The gradients of a value, and no others added to them."""
        for tensor in (*self.student, *self.loss.parameters()):
            tensor.grad = None
        value.backward()
        return self.gradients()


def trial(case: str, seed: int = 0, **arguments: Any) -> Trial:
    """Tries a loss as its setting says; the seed is that of the connectors' weights."""
    setting = SETTINGS[case]
    generator = torch.Generator().manual_seed(0)
    loss = LOSSES[case.split(':')[0]](**{**setting.arguments, **arguments})
    sides = getattr(loss, 'sides', SIDES)
    made = {side: (setting.student if side == 'student' else setting.teacher)(generator) for side in sides}
    needs = {name: NEEDS[name](N) for name in loss.needs}
    tried = Trial(loss, made, needs).wanting()
    for argument, other in setting.uses.items():
        loss.take(argument, trial(other).loss)
    torch.manual_seed(seed)
    loss.build_connectors(*tried.sides(setting.shape))
    if setting.prepare:
        setting.prepare(loss)
    return tried


def rows(start: int, stop: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[start:stop]


def columns(count: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[:, :count]


def cast(*dtypes: torch.dtype) -> Callable[[Tensor], Tensor]:
    """To one dtype after the other."""

    def change(tensor: Tensor) -> Tensor:
        for dtype in dtypes:
            tensor = tensor.to(dtype)
        return tensor

    return change


def below(registry: Registry) -> Iterator[Registry]:
    for child in registry.children.values():
        yield child
        yield from below(child)


class TestDeclaration:
    """What is known of a loss before it computes anything."""

    pytestmark = [names]

    @pytest.mark.openmmlab
    def test_registered_in_the_root_under_its_own_name(self, name):
        assert LOSSES[name].__name__ == name
        assert MODELS.scope == 'mmengine'
        assert MODELS.module_dict[name] is LOSSES[name]

    @pytest.mark.openmmlab
    def test_name_is_free_in_every_other_registry(self, name):
        import mmdet.models  # noqa: F401
        import mmpretrain.models  # noqa: F401

        children = list(below(MODELS))
        assert {'mmdet', 'mmpretrain'} <= {child.scope for child in children}
        assert [child.scope for child in children if name in child.module_dict] == []

    @pytest.mark.openmmlab
    @pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmdet'])
    def test_builds_from_a_config_in_any_scope(self, name, scope):
        with DefaultScope.overwrite_default_scope(scope):
            loss = MODELS.build({'type': name, **SETTINGS[name].arguments, 'loss_weight': 0.5})
        assert type(loss) is LOSSES[name]
        assert loss.loss_weight == 0.5

    def test_setting_tries_every_argument(self, name):
        parameters = inspect.signature(LOSSES[name]).parameters
        arguments, apart = SETTINGS[name].arguments, SETTINGS[name].apart
        others = {key for case in SETTINGS if case.startswith(f'{name}:') for key in SETTINGS[case].arguments}
        assert {*arguments, *apart, 'loss_weight'} == parameters.keys()
        assert set(apart) <= others
        assert [key for key in arguments if arguments[key] == parameters[key].default] == []

    def test_forward_takes_the_taps_and_what_it_needs(self, name):
        parameters = list(inspect.signature(LOSSES[name].forward).parameters)
        assert parameters == ['self', *getattr(LOSSES[name], 'sides', SIDES), *LOSSES[name].needs]
        assert set(LOSSES[name].needs) <= NEEDS.keys()

    def test_defaults_suffice(self, name):
        assert 0 < LOSSES[name]().loss_weight < float('inf')

    @pytest.mark.parametrize('weight', [-1, -1e-9, float('nan'), float('inf'), -float('inf'), True, 'much', None, []])
    def test_wrong_weights_are_refused(self, name, weight):
        with pytest.raises(ValueError) as error:
            LOSSES[name](loss_weight=weight)
        assert f'{name}: loss_weight={weight!r} given, expected' in str(error.value)

    @pytest.mark.parametrize(
        'value', ['nothing', '', float('nan'), float('inf'), -float('inf'), -1, -0.5, True, 0, None, [], ()]
    )
    def test_wrong_arguments_are_refused(self, name, value):
        """A word is no number, a boolean neither, and nothing else is a boolean."""
        parameters = inspect.signature(LOSSES[name]).parameters
        for key in (*SETTINGS[name].arguments, *SETTINGS[name].apart):
            default = parameters[key].default
            if isinstance(value, bool) and isinstance(default, bool):
                continue
            if key in LOSSES[name].uses:
                continue  # the build refuses what is no name of such a loss
            if (value is None and default is None) or (key in SETTINGS[name].signed and value in (-1, -0.5)):
                continue
            zero = value == 0 and isinstance(value, int) and not isinstance(value, bool)
            if zero and (isinstance(default, float) or key in SETTINGS[name].zero):
                continue  # some numbers may be 0; the loss's own tests say which
            with pytest.raises((ValueError, TypeError)) as error:
                LOSSES[name](**{key: value})
            assert f'{key}={value!r}' in str(error.value)

    def test_repr_names_the_arguments(self, name):
        text = repr(trial(name, loss_weight=0.25).loss)
        assert text.startswith(f'{name}(')
        for key, given in {**SETTINGS[name].arguments, 'loss_weight': 0.25}.items():
            shown = f'{given:g}' if isinstance(given, float) else repr(given)
            assert f'{key}={shown}' in text

    def test_docs_name_the_paper(self, name):
        module = sys.modules[LOSSES[name].__module__]
        functions = [
            item for item in vars(module).values() if inspect.isfunction(item) and item.__module__ == module.__name__
        ]
        docs = [module.__doc__, LOSSES[name].__doc__, *(function.__doc__ for function in functions)]
        assert any('arXiv' in (text or '') for text in docs)


@cases
class TestValue:
    def test_finite_scalar_not_below_zero(self, case):
        value = trial(case).value()
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert value >= 0 or SETTINGS[case].negative

    def test_every_argument_counts(self, case):
        parameters = inspect.signature(LOSSES[case.split(':')[0]]).parameters
        # several processes; names of other losses; and what the setting says
        uncounted = {'gather', *LOSSES[case.split(':')[0]].uses, *SETTINGS[case].uncounted}
        for key in SETTINGS[case].arguments.keys() - uncounted:
            if ':' in case and key in ('regressor', 'connector'):
                continue  # its default may not fit; the entry under the loss's own name tries it
            other, own = trial(case, **{key: parameters[key].default}), trial(case)
            values = other.value(), own.value()
            slopes = other.backward(values[0]), own.backward(values[1])
            same = all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))
            assert values[0] != values[1] or not same, key

    def test_linear_in_the_weight(self, case):
        value = trial(case, loss_weight=1.0).value()
        assert value > 0
        for weight in (0.25, 30.0):
            torch.testing.assert_close(trial(case, loss_weight=weight).value(), weight * value)

    def test_weight_zero_gives_exactly_zero(self, case):
        weightless = trial(case, loss_weight=0.0)
        value = weightless.value()
        assert value == 0
        assert all((gradient == 0).all() for gradient in weightless.backward(value))

    def test_equal_taps_give_zero_and_no_slope(self, case):
        if not SETTINGS[case].zero_at_equality:
            pytest.skip('is not zero at equality')
        tried = trial(case)
        for one, atol in ((tried, 1e-6), (tried.double(), SETTINGS[case].flat)):
            equal = {side: one.student * (len(taps) if side == 'teachers' else 1) for side, taps in one.taps.items()}
            clones = {side: [tap.detach().clone() for tap in taps] for side, taps in equal.items()}
            same = Trial(one.loss, clones, one.needs)
            value = same.wanting().value()
            assert abs(value.item()) <= atol * same.loss.loss_weight
            assert all(gradient.abs().max() <= atol * same.loss.loss_weight for gradient in same.backward(value))

    def test_mean_over_the_batch(self, case):
        if not SETTINGS[case].batch_mean:
            pytest.skip('is no mean over the samples')
        tried = trial(case)
        torch.testing.assert_close(tried.value(lambda tensor: torch.cat([tensor, tensor])), tried.value())

    def test_mean_of_the_samples_values_in_any_order(self, case):
        """By running statistics, where there are some: those of a batch are of the whole batch."""
        if not SETTINGS[case].any_order:
            pytest.skip('the order of the samples counts')
        tried = trial(case).double()
        order = torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(tried.value(lambda tensor: tensor[order]), tried.value())
        if not SETTINGS[case].by_sample:
            pytest.skip('samples have no values of their own')
        tried.loss.eval()
        alone = [tried.value(rows(i, i + 1)) for i in range(N)]
        torch.testing.assert_close(tried.value(), torch.stack(alone).mean())

    def test_same_value_each_time_and_statistics_change_in_training_only(self, case):
        tried = trial(case)
        statistics = copy.deepcopy(dict(tried.loss.named_buffers()))
        tried.loss.eval()
        value = tried.value()
        assert tried.value() == value
        assert tried.loss(*tried.sides(lambda tap: tap), **tried.needs) == value
        torch.testing.assert_close(dict(tried.loss.named_buffers()), statistics, rtol=0, atol=0)
        in_training = tried.loss.train() and tried.loss(*tried.sides(lambda tap: tap), **tried.needs)
        same = {name for name, buffer in tried.loss.named_buffers() if torch.equal(buffer, statistics[name])}
        assert same == {name for name in statistics if name.rpartition('.')[2] in SETTINGS[case].constant}
        assert in_training == value or statistics

    def test_memory_format_is_free(self, case):
        tried = trial(case)
        expected = tried.value()
        gradients = [gradient.clone() for gradient in tried.backward(expected)]

        def laid_out(tensor: Tensor) -> Tensor:
            last = tensor.dim() - 1
            return tensor.transpose(0, last).contiguous().transpose(0, last) if last else tensor

        for change in (
            laid_out,
            lambda tensor: tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor,
        ):
            value = trial(case).value(change)
            torch.testing.assert_close(value, expected)
            other = trial(case)
            for found, wanted in zip(other.backward(other.value(change)), gradients, strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))

    def test_state_dict_round_trip(self, case):
        tried, other = trial(case, seed=0), trial(case, seed=1)
        state = copy.deepcopy(tried.loss.state_dict())
        other.loss.load_state_dict(state, strict=True)
        torch.testing.assert_close(other.loss.state_dict(), state, rtol=0, atol=0)
        assert other.value() == tried.value()

    def test_deepcopy(self, case):
        tried = trial(case)
        twin = copy.deepcopy(tried.loss)
        assert repr(twin) == repr(tried.loss)
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in tried.loss.parameters()}
        value = tried.value()
        tried.loss = twin
        assert tried.value() == value


@cases
class TestGradient:
    def test_reaches_the_student_and_every_connector(self, case):
        tried = trial(case)
        for gradient in tried.backward(tried.value()):
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0

    def test_does_not_reach_the_teacher(self, case):
        tried = trial(case)
        for tap in tried.teacher:
            tap.requires_grad_()
        tried.value().backward()
        assert [tap.grad for tap in tried.teacher] == [None] * len(tried.teacher)

    @pytest.mark.parametrize('training', [True, False])
    def test_is_that_of_the_value(self, case, training):
        """gradcheck in float64, along random directions, by the student's taps and by the connectors' parameters."""
        smooth = SETTINGS[case].smooth
        if smooth is None:
            pytest.skip('takes some of the value as constant')
        tried = trial(case, **smooth).double()
        tried.loss.train(training)
        names = [name for name, _ in tried.loss.named_parameters()]
        count = len(tried.student)

        def value(*tensors: Tensor) -> Tensor:
            taps = tried.taps | ({'student': list(tensors[:count])} if count else {})
            given = Trial(tried.loss, taps, tried.needs).sides(lambda tap: tap)
            parameters = dict(zip(names, tensors[count:], strict=True))
            return tried.called(given, tried.needs, **parameters)

        tensors = (*tried.student, *tried.loss.parameters())
        assert torch.autograd.gradcheck(value, tensors, fast_mode=True, atol=1e-5)

    def test_tensors_stay_as_they_are(self, case):
        tried = trial(case)
        before = copy.deepcopy((tried.taps, tried.needs))
        tried.value().backward()
        torch.testing.assert_close((tried.taps, tried.needs), before, rtol=0, atol=0)


class TestPrecision:
    @low_precision
    @cases
    def test_float32_under_autocast(self, case, dtype):
        tried = trial(case)
        expected = tried.value()
        gradients = [gradient.clone() for gradient in tried.backward(expected)]
        with torch.autocast('cpu', dtype=dtype):
            value = tried.value()
            of_halves = tried.floats(lambda tap: tap.to(dtype))
        assert value.dtype == of_halves.dtype == torch.float32
        assert of_halves.isfinite()
        # a learnable connector may run in half precision, the loss itself may not
        torch.testing.assert_close(value, expected, rtol=SETTINGS[case].rounding if tried.learns else 0, atol=0)
        # backward runs outside, as torch advises and mmengine does: autocast would reach its products
        found = tried.backward(value)
        assert all(gradient.isfinite().all() for gradient in found)
        if not tried.learns:
            torch.testing.assert_close(found, gradients, rtol=0, atol=0)
        assert all(gradient.isfinite().all() for gradient in tried.backward(of_halves))

    @low_precision
    @cases
    @pytest.mark.parametrize('scale', [1, 1000])
    def test_half_precision_taps_are_raised(self, case, dtype, scale):
        """To values whose squares are more than float16 holds."""
        if trial(case).learns:
            pytest.skip('connectors are run by autocast')
        scaled = trial(case).changed(**dict.fromkeys(SIDES, lambda tap: scale * tap))
        half, single = (
            scaled.changed(**dict.fromkeys(SIDES, change)) for change in (cast(dtype), cast(dtype, torch.float32))
        )
        value, expected = half.value(), single.value()
        assert value.dtype == torch.float32
        assert value == expected
        assert half.changed(teacher=Tensor.float).value() == expected
        for found, wanted in zip(half.backward(value), single.backward(expected), strict=True):
            assert found.dtype == dtype
            torch.testing.assert_close(found, wanted.to(dtype))

    @cases
    def test_float32_is_as_good_as_float64(self, case):
        tried = trial(case)
        value, exact = tried.value(), tried.double().value()
        torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=1e-6 * tried.loss.loss_weight)


def dead_channel(tap: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(tap[:, :1]), tap[:, 1:]], 1)


EXTREMES: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    'dead student': {'student': torch.zeros_like},
    'dead teacher': {'teacher': torch.zeros_like},
    'both dead': {'student': torch.zeros_like, 'teacher': torch.zeros_like},
    'one image of each dead': {side: lambda tap: tap * (torch.arange(N) != 1).view(-1, *[1] * (tap.dim() - 1))
                               for side in SIDES},
    'dead channels': {'student': dead_channel, 'teacher': dead_channel},
    'many zeros': {'student': torch.relu, 'teacher': torch.relu},
    'constant': {'student': torch.ones_like, 'teacher': torch.ones_like},
    'large': {'student': lambda tap: 1e4 * tap, 'teacher': lambda tap: -1e4 * tap},
    'small': {'student': lambda tap: 1e-8 * tap, 'teacher': lambda tap: 1e-8 * tap},
    'large against small': {'student': lambda tap: 1e4 * tap, 'teacher': lambda tap: 1e-8 * tap},
}  # fmt: skip


class TestExtremes:
    @cases
    @pytest.mark.parametrize('extreme', EXTREMES)
    def test_stay_finite(self, case, extreme):
        tried = trial(case).changed(**EXTREMES[extreme])
        value = tried.value()
        assert value.isfinite()
        assert value >= -1e-6 * tried.loss.loss_weight or SETTINGS[case].negative
        assert all(gradient.isfinite().all() for gradient in tried.backward(value))
        # of values that float16 does not hold, or whose slopes it does not
        if not tried.learns and not {'large', 'small'} & set(extreme.split()):
            half = tried.changed(student=Tensor.half, teacher=Tensor.half)
            value = half.value()
            assert value.isfinite()
            assert all(gradient.isfinite().all() for gradient in half.backward(value))

    @pytest.mark.parametrize('case', [case for case in SETTINGS if LOSSES[case.split(':')[0]].compares_logits])
    def test_saturated_logits(self, case):
        """Every pair of rows whose entries are -1e4, 0 or 1e4."""
        values = torch.tensor([-1e4, 0.0, 1e4])
        rows = torch.cartesian_prod(values, values, values)
        count = len(rows)
        for temperature in (1.0, 4.0):
            tried = trial(case, temperature=temperature)
            loss = tried.loss
            taps = {side: [rows.repeat(count, 1)] * len(tried.taps[side]) for side in tried.taps}
            taps['student'] = [rows.repeat_interleave(count, 0)]
            tried = Trial(loss, copy.deepcopy(taps), {name: NEEDS[name](count**2) for name in loss.needs}).wanting()
            value, exact = tried.value(), (double := tried.double()).value()
            assert value.dtype == torch.float32
            torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-7)
            slope, exact_slope = tried.backward(value)[0].clone(), double.backward(exact)[0]
            torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-3, atol=1e-6)
            for dtype in LOW_PRECISION:
                with torch.autocast('cpu', dtype=dtype):
                    again = tried.value()
                assert again == value
                torch.testing.assert_close(tried.backward(again)[0], slope, rtol=0, atol=0)
                half = tried.changed(**dict.fromkeys(SIDES, cast(dtype)))
                rounded = tried.changed(**dict.fromkeys(SIDES, cast(dtype, torch.float32)))
                assert half.value() == rounded.value()
                assert half.backward(half.value())[0].isfinite().all()

    @cases
    @pytest.mark.parametrize('training', [True, False])
    @pytest.mark.parametrize('precision', ['float32', 'float64'])
    def test_empty_batch_gives_zero_with_a_graph(self, case, training, precision):
        tried = trial(case)
        tried = tried.double() if precision == 'float64' else tried
        tried.loss.train(training)
        value = tried.value(rows(0, 0))
        assert value == 0
        assert all((gradient == 0).all() for gradient in tried.backward(value))
        assert all(buffer.isfinite().all() for buffer in tried.loss.buffers())

    @cases
    @pytest.mark.parametrize('training', [True, False])
    def test_batch_of_one(self, case, training):
        tried = trial(case)
        tried.loss.train(training)
        value = tried.value(rows(0, 1))
        assert value.isfinite()
        assert all(gradient.isfinite().all() for gradient in tried.backward(value))


class TestRefusals:
    @cases
    @pytest.mark.parametrize('teachers', [1, 2])
    def test_other_batches(self, case, teachers):
        """One teacher row would broadcast."""
        tried = trial(case).changed(teacher=rows(0, teachers))
        if len(tried.taps) == 1:
            pytest.skip('compares nobody')
        with pytest.raises(ValueError, match='expected') as error:
            tried.value()
        assert f'({teachers}, ' in str(error.value)
        assert f'({N}, ' in str(error.value)

    @cases
    @pytest.mark.parametrize('change', [lambda tap: tap[:, 0], lambda tap: tap[..., None]], ids=['fewer', 'more'])
    @pytest.mark.parametrize('which', [SIDES, SIDES[:1], SIDES[1:]], ids=['both', 'student', 'teacher'])
    def test_other_dimensions(self, case, which, change):
        """Where connectors are built, or at the latest when they are called."""
        if SETTINGS[case].any_shape:
            pytest.skip('takes any shape')
        tried = trial(case).changed(**dict.fromkeys(which, change))
        which = [side for side in which if side in tried.taps]
        if not which:
            pytest.skip('does not read this side')
        with pytest.raises(ValueError, match='expected') as error:
            tried.loss.build_connectors(*tried.sides(lambda tap: tap.shape))
            tried.value()
        for side in which:
            taps = tried.student if side == 'student' else tried.teacher
            assert any(str(tuple(tap.shape)) in str(error.value) for tap in taps)

    @pytest.mark.parametrize('case', [case for case in SETTINGS if LOSSES[case.split(':')[0]].compares_logits])
    def test_logits_of_other_classes(self, case):
        side, told = ('student', 'where the first') if SETTINGS[case].older else ('teacher', 'expected two tensors')
        for fewer in range(1, trial(case).teacher[0].shape[1]):
            tried = trial(case).changed(**{side: columns(fewer)})
            with pytest.raises(ValueError, match=told) as error:
                tried.value()
            assert all(str(tuple(tap.shape)) in str(error.value) for tap in (*tried.student, *tried.teacher))

    @pytest.mark.parametrize('case', [case for case in SETTINGS if 'labels' in LOSSES[case.split(':')[0]].needs])
    def test_labels(self, case):
        """Soft ones, those of other rows, and numbers that are no class; any integers will do."""
        tried = trial(case)
        value, labels = tried.value(), tried.needs['labels']
        for dtype in (torch.int32, torch.uint8, torch.int16):
            tried.needs = {'labels': labels.to(dtype)}
            assert tried.value() == value
        soft = [labels + 0.5, torch.full((N, CLASSES), 1 / CLASSES), labels > 0]
        shapes = [labels[:-1], torch.cat([labels, labels]), labels[:1], labels[:, None], labels[0]]
        for wrong, kind in [*((x, TypeError) for x in soft), *((x, ValueError) for x in shapes)]:
            tried.needs = {'labels': wrong}
            with pytest.raises(kind, match='labels'):
                tried.value()
        for label in (-1, CLASSES, 255):
            tried.needs = {'labels': torch.tensor([0, 1, 2, label])}
            with pytest.raises((ValueError, IndexError, RuntimeError), match=str(label)):
                tried.value()
