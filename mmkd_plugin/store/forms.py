"""How a tapped value becomes the bytes of a record, and comes back."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from .options import StoreOptions


class Form(ABC):
    """One way to keep the values of a tap.

    Args:
        shape: Of a sample's value.
        dtype: ``float16`` or ``float32``.
        temperatures: See :class:`TopK`.
    """

    name: ClassVar[str]
    #: How many values of a sample are kept.
    keep: int | Literal['all'] = 'all'

    def __init__(self, shape: Sequence[int], dtype: str, temperatures: Sequence[float] = ()) -> None:
        self.shape, self.dtype, self.temperatures = tuple(shape), dtype, tuple(temperatures)

    @property
    @abstractmethod
    def layout(self) -> np.dtype[Any]:
        """Of a record, packed."""

    @abstractmethod
    def encode(self, value: Tensor) -> np.ndarray[Any, Any]:
        """Records (N,) of values (N, *shape).

        Raises:
            FloatingPointError: If a value is not finite, or too large for the dtype.
        """

    @abstractmethod
    def decode(self, records: np.ndarray[Any, Any], temperature: float | None = None) -> Tensor:
        """Values (N, *shape) float32 of records (N,), on the CPU.

        Args:
            records: Of :attr:`layout`.
            temperature: The one at which they will be read; None where it does not matter.
        """

    def to_dict(self) -> dict[str, Any]:
        """For a header."""
        return {'form': self.name, 'shape': list(self.shape), 'dtype': self.dtype}

    def _record(self, **fields: Tensor | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        count = len(next(iter(fields.values())))
        records = np.zeros(count, self.layout)
        for name, field in fields.items():
            array = field.cpu().numpy() if isinstance(field, Tensor) else field
            with np.errstate(over='ignore'):
                records[name] = array
            kept = records[name]
            if kept.dtype.kind == 'f' and not np.isfinite(kept).all():
                finite = bool(np.isfinite(array).all())
                raise FloatingPointError(
                    f"values as large as {np.abs(array).max():.3g} do not fit into float16: say dtype='float32'"
                    if finite
                    else 'the teacher gives values that are not finite, which are not kept'
                )
        return records


class Whole(Form):
    """All values as they are, rounded to the dtype; float32 is exact."""

    name = 'whole'

    @property
    def layout(self) -> np.dtype[Any]:
        """Of a record, packed."""
        return np.dtype([('values', np.dtype(self.dtype).newbyteorder('<'), self.shape)])

    def encode(self, value: Tensor) -> np.ndarray[Any, Any]:
        """Records (N,) of values (N, *shape)."""
        return self._record(values=value.float())

    def decode(self, records: np.ndarray[Any, Any], temperature: float | None = None) -> Tensor:
        """Values (N, *shape) float32."""
        return torch.from_numpy(np.ascontiguousarray(records['values'], np.float32))


class Shifted(Form):
    """Class scores (C,) in float16 less the largest one, which stands beside them in float32.

    What counts in a softmax is then near zero, where float16 is finest.
    """

    name = 'shifted'

    @property
    def layout(self) -> np.dtype[Any]:
        """Of a record, packed."""
        return np.dtype([('top', '<f4'), ('below', '<f2', self.shape)])

    def encode(self, value: Tensor) -> np.ndarray[Any, Any]:
        """Records (N,) of values (N, C)."""
        value = value.float()
        top = value.amax(1)
        return self._record(top=top, below=value - top[:, None])

    def decode(self, records: np.ndarray[Any, Any], temperature: float | None = None) -> Tensor:
        """Values (N, C) float32."""
        return torch.from_numpy(records['below'].astype(np.float32) + records['top'][:, None])


class TopK(Form):
    r"""The largest K of class scores (C,), and for each temperature T the logsumexp of the others.

    What comes back has these K as they are, and one value for all others, ``T (lse_T - ln(C - K))``: its softmax at T
    has the kept classes' probabilities, and the rest of the mass evenly over the other classes (TinyViT, Wu et al.,
    ECCV 2022, arXiv 2207.10666, and FKD, Shen and Xing, ECCV 2022, arXiv 2112.01528, smooth it so; they keep
    probabilities at T = 1, whose sum can exceed 1 in float16: a logsumexp of the rest cannot).

    Args:
        shape: (C,).
        dtype: Of the scores less the largest one.
        temperatures: Those at which it may be read.
        keep: K < C.

    Raises:
        ValueError: If these are no class scores, or so many are not there.
    """

    name = 'top-k'

    def __init__(self, shape: Sequence[int], dtype: str, temperatures: Sequence[float] = (), keep: int = 1) -> None:
        super().__init__(shape, dtype, temperatures)
        if len(self.shape) != 1:
            raise ValueError(
                f"keep={keep} given, and the teacher gives {self.shape} for a sample, no class scores (C,): keep='all'"
            )
        if not keep < self.shape[0]:
            raise ValueError(f"keep={keep} given of {self.shape[0]} classes, expected fewer, or keep='all'")
        if not self.temperatures:
            raise ValueError(
                f'keep={keep} given, and no temperature at which the store is read: name temperatures=[...]'
            )
        self._count = self.keep = keep

    @property
    def layout(self) -> np.dtype[Any]:
        """Of a record, packed."""
        classes = '<u2' if self.shape[0] <= 2**16 else '<u4'
        below = np.dtype(self.dtype).newbyteorder('<')
        fields = [('top', '<f4'), ('rest', '<f4', (len(self.temperatures),))]
        return np.dtype([*fields, ('below', below, (self.keep,)), ('classes', classes, (self.keep,))])

    def encode(self, value: Tensor) -> np.ndarray[Any, Any]:
        """Records (N,) of values (N, C)."""
        value = value.double()
        kept, classes = value.topk(self._count, dim=1)
        others = value.scatter(1, classes, -torch.inf)
        top = kept[:, 0]
        rest = torch.stack([((others - top[:, None]) / t).logsumexp(1) for t in self.temperatures], 1)
        return self._record(top=top, rest=rest, below=kept - top[:, None], classes=classes)

    def decode(self, records: np.ndarray[Any, Any], temperature: float | None = None) -> Tensor:
        """Values (N, C) float32, for one temperature.

        Raises:
            ValueError: If it is none of those that were kept.
        """
        if temperature not in self.temperatures:
            raise ValueError(
                f'the store keeps {self.keep} of {self.shape[0]} class scores for the temperatures '
                f'{list(self.temperatures)}, and is read at {temperature}'
            )
        classes, place = self.shape[0], self.temperatures.index(temperature)
        others = temperature * (records['rest'][:, place] - np.log(classes - self._count))
        values = np.repeat(others[:, None].astype(np.float32), classes, axis=1)
        np.put_along_axis(values, records['classes'].astype(np.int64), records['below'].astype(np.float32), axis=1)
        return torch.from_numpy(values + records['top'][:, None])

    def to_dict(self) -> dict[str, Any]:
        """For a header."""
        return {**super().to_dict(), 'keep': self.keep, 'temperatures': list(self.temperatures)}


_FORMS: dict[str, type[Form]] = {form.name: form for form in (Whole, Shifted, TopK)}


def choose_form(shape: tuple[int, ...], options: StoreOptions, logits: bool, temperatures: Sequence[float]) -> Form:
    """The form in which a run keeps a tap.

    Args:
        shape: Of a sample's value.
        options: What the config says.
        logits: Whether only losses read it that compare class scores.
        temperatures: At which these read it, with ``keep=K``.

    Raises:
        ValueError: If it cannot be kept so.
    """
    if options.keep != 'all':
        return TopK(shape, options.dtype, temperatures, options.keep)
    if logits and len(shape) == 1 and options.dtype == 'float16':
        return Shifted(shape, options.dtype)
    return Whole(shape, options.dtype)


def form_of(given: Mapping[str, Any]) -> Form:
    """The form that a header tells.

    Raises:
        ValueError: If it is not understood.
    """
    try:
        more = {'keep': given['keep']} if given['form'] == TopK.name else {}
        return _FORMS[given['form']](given['shape'], given['dtype'], given.get('temperatures', ()), **more)
    except (KeyError, TypeError) as error:
        raise ValueError(f'{given!r:.200} tells no form in which values are kept') from error
