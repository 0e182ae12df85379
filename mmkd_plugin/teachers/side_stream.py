"""A teacher's pass on a CUDA stream of its own, beside the student's."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..networks import Tap


class Begun:
    """A pass that was begun, and is waited for when somebody reads it.

    Args:
        run: Makes the pass.
        images: Of the batch, on a GPU; nobody may change them in place until :meth:`values`.
        stream: Another one than the current.
    """

    def __init__(self, run: Callable[[], dict[Tap, Tensor]], images: Tensor, stream: torch.cuda.Stream) -> None:
        self.images, self._version, self._stream = images, images._version, stream
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            self._values = run()
        images.record_stream(stream)

    def values(self, taps: Mapping[Tap, object], name: str) -> dict[Tap, Tensor]:
        """What it read, for the current stream.

        Raises:
            RuntimeError: If the images were changed in place meanwhile.
        """
        if self.images._version != self._version:
            raise RuntimeError(
                f"{name}: the student changed the images in place while the teacher's stream read them: "
                'say stream=False'
            )
        current = torch.cuda.current_stream(self.images.device)
        current.wait_stream(self._stream)
        for tap in taps:
            self._values[tap].record_stream(current)
        return {tap: self._values[tap] for tap in taps}
