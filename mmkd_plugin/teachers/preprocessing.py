"""Feeding a teacher what it was trained on, from the batch that the student got."""

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from ..facts import Sizes


class SizesBeforePadding:
    """Height and width of each image of a batch before it was padded, as the student's data preprocessor met them.

    What data samples say is not asked first: transforms that do not know of ``img_shape`` leave it stale.

    Args:
        student: Its ``data_preprocessor`` is listened to.
    """

    def __init__(self, student: nn.Module) -> None:
        self._batch: tuple[Any, Sizes | None] = (None, None)
        preprocessor = getattr(student, 'data_preprocessor', None)
        if isinstance(preprocessor, nn.Module):
            preprocessor.register_forward_hook(self._read)

    def _read(self, preprocessor: nn.Module, args: Any, output: Any) -> None:
        self._batch = (None, None)
        images = output.get('inputs') if isinstance(output, dict) else None
        given = args[0].get('inputs') if args and isinstance(args[0], dict) else None
        if not isinstance(images, Tensor) or images.ndim != 4 or given is None:
            return
        stacked = isinstance(given, Tensor)
        sizes = [given.shape[-2:]] * len(given) if stacked else [image.shape[-2:] for image in given]
        divisor = int(getattr(preprocessor, 'pad_size_divisor', 1))
        padded = tuple(math.ceil(max(side) / divisor) * divisor for side in zip(*sizes, strict=True))
        # otherwise a batch augmentation gave the images another size, and tells the data samples
        known = sizes if padded == images.shape[-2:] else None
        self._batch = weakref.ref(images), known

    def of(self, images: Tensor, data_samples: Any = None) -> Sizes | None:
        """Sizes of the images that the model was called with.

        Args:
            images: (N, C, H, W), from the data preprocessor.
            data_samples: Of the batch. mmdet's tell sizes that its own batch augmentations changed.

        Returns:
            N pairs, or None where nobody knows: then nothing is taken for padding.
        """
        made, sizes = self._batch
        if made is not None and made() is images and sizes is not None:
            return sizes
        samples = data_samples if isinstance(data_samples, (list, tuple)) else ()
        batch = tuple(images.shape[-2:])
        shapes = [getattr(s, 'img_shape', None) for s in samples if getattr(s, 'batch_input_shape', None) == batch]
        if len(shapes) == len(images) and all(shape is not None for shape in shapes):
            return [tuple(shape[:2]) for shape in shapes]  # type: ignore[index]
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> 'SizesBeforePadding':
        """Of a copied student: it listens to the copied preprocessor, whose hooks are copied along."""
        copy = object.__new__(SizesBeforePadding)
        copy._batch = (None, None)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {'_batch': (None, None)}


class Renormalize(nn.Module):
    """From the student's normalised images to the teacher's, in one multiply-add.

    Undoes the student's mean, std and channel order and applies the teacher's; padded borders get
    the teacher's padding value again. The identity (same tensor) where both agree.

    Args:
        student: The student's data preprocessor (mmengine's, mmpretrain's or mmdet's).
        teacher: The teacher's; None for a teacher that has none and takes the student's batch.
        side: What the teacher is called in errors.

    Raises:
        ValueError: If only one of them normalises, if one pads to multiples that the other does
            not, or if what they do is no normalisation by mean and std.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, student: nn.Module | None, teacher: nn.Module | None, side: str) -> None:
        super().__init__()
        self.identity = True
        self.flip = False
        self.pad_value: float | None = None
        if student is None or teacher is None:
            return
        if _do_the_same(student, teacher):
            return
        mean_s, std_s, flip_s = _normalization(student, 'student')
        mean_t, std_t, flip_t = _normalization(teacher, side)
        normalizes = [getattr(p, 'mean', None) is not None for p in (student, teacher)]
        if normalizes[0] != normalizes[1]:
            raise ValueError(
                f"the {'student' if normalizes[0] else side}'s data_preprocessor normalises images and the other's "
                f'does not, so the {side} would see other values than it was trained on. Give both their mean and std '
                '(mean=[0], std=[1] says that raw pixels are meant); a teacher given as model=dict(...) without a '
                "data_preprocessor gets the student's"
            )
        self.flip = flip_s != flip_t
        if self.flip:  # bring the student's constants into the teacher's channel order
            mean_s, std_s = mean_s.flip(0), std_s.flip(0)
        self.register_buffer('scale', (std_s / std_t).float(), persistent=False)
        self.register_buffer('shift', ((mean_s - mean_t) / std_t).float(), persistent=False)
        same = bool((self.scale == 1).all() and (self.shift == 0).all())
        self.identity = same and not self.flip
        pads = [float(getattr(p, 'pad_value', 0)) for p in (student, teacher)]
        if not self.identity or pads[0] != pads[1]:
            self.pad_value = pads[1]
        divisors = [int(getattr(p, 'pad_size_divisor', 1)) for p in (student, teacher)]
        if divisors[0] % divisors[1]:
            raise ValueError(
                f'the {side} pads images to multiples of {divisors[1]}, the student to multiples '
                f'of {divisors[0]}: give the student data_preprocessor=dict(pad_size_divisor='
                f'{divisors[1]}, ...)'
            )

    def forward(self, images: Tensor, sizes: Sizes | None = None) -> Tensor:
        """Re-normalise a batch.

        Args:
            images: (N, C, H, W), as the student's preprocessor made them.
            sizes: Each image's height and width before padding; None if there is none.

        Returns:
            (N, C, H, W) as the teacher's preprocessor would have made them.
        """
        if not self.identity:
            if self.flip:
                images = images.flip(1)
            images = torch.addcmul(self.shift, images, self.scale)
        if self.pad_value is None or sizes is None:
            return images
        height, width = images.shape[-2:]
        if all(size == (height, width) for size in sizes):
            return images
        inner = torch.tensor(sizes).to(images.device, non_blocking=True)
        rows = torch.arange(height, device=images.device) < inner[:, :1]
        columns = torch.arange(width, device=images.device) < inner[:, 1:]
        inside = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
        return images.masked_fill(~inside, self.pad_value)


def _do_the_same(student: nn.Module, teacher: nn.Module) -> bool:
    """Whether two preprocessors, whatever they do, make the same of an image, and pad alike."""
    pads = [(getattr(p, 'pad_value', 0), getattr(p, 'pad_size_divisor', 1)) for p in (student, teacher)]
    made = [_sent_through(p, _example(3)) for p in (student, teacher)]
    same = made[0] is not None and made[1] is not None and torch.equal(made[0], made[1])
    return type(student) is type(teacher) and pads[0] == pads[1] and same


def _example(channels: int) -> Tensor:
    image = torch.randint(0, 256, (channels, 32, 32), generator=torch.Generator().manual_seed(0))
    return image.to(torch.uint8)


def _normalization(preprocessor: nn.Module, side: str) -> tuple[Tensor, Tensor, bool]:
    """Mean (C, 1, 1), std (C, 1, 1), and whether channels are reversed on the way in.

    ``mean`` and ``std`` are read, and what they and the order of channels do is seen on an image that is sent through.
    """
    zeros, ones = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    mean, std = (
        getattr(preprocessor, name, None) if getattr(preprocessor, 'mean', None) is not None else default
        for name, default in (('mean', zeros), ('std', ones))
    )
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        mean, std = mean.cpu().double().view(-1, 1, 1), std.cpu().double().view(-1, 1, 1)
        image = _example(max(len(mean), 3))
        seen = _sent_through(preprocessor, image)
        for flip in (False, True):
            expected = ((image.flip(0) if flip else image) - mean) / std
            if seen is not None and seen.shape == expected.shape and torch.allclose(seen, expected, 1e-2, 1e-2):
                return mean, std, flip
    raise ValueError(
        f"the {side}'s data preprocessor ({type(preprocessor).__name__}) does something else to an image than "
        '(image - mean) / std, with its channels perhaps reversed, so the teacher cannot be given what it was trained '
        'on: give both models a data_preprocessor of the same class and arguments, or pass the teacher as a built '
        'module without one'
    )


def _sent_through(preprocessor: nn.Module, image: Tensor) -> Tensor | None:
    """What becomes of one image (C, H, W), without padding; None if it cannot be sent through alone."""
    try:
        made: Any = preprocessor({'inputs': [image], 'data_samples': None})
        images = made['inputs']
        return images[0].detach().cpu().double()[..., : image.shape[-2], : image.shape[-1]]
    except (RuntimeError, TypeError, AttributeError, ValueError, AssertionError, KeyError, IndexError):
        return None
