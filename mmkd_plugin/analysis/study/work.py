"""The folder in which a study keeps what it found, and finding what is missing."""

import hashlib
import io
import json
import re
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...experiments.runs import flatten
from ...experiments.screen import Screen, duration
from ...files.atomic import write_bytes, write_text
from ...files.checkpoint import read_checkpoint, state_dict_of
from ...files.fitting import load_exactly
from ...networks import Tap, network_of
from ..discarding import Setting, discard, entropy
from ..features import Tapped, made_faster
from .networks import Checkpoint, Run
from .samples import Sample, digest_of, inputs_of

_VERSION = 1


@dataclass
class Found:
    """Of one checkpoint and tap: entropies (N, h, w) in nats, and which of the images can be used (N,)."""

    entropy: Tensor
    usable: Tensor


class Study:
    """Images and a setting, whose results are kept in a folder.

    Every image of every checkpoint and tap is a file of its own, written whole or not at all and named by the weights,
    so that a study that was ended goes on where it was, with more images, checkpoints or seeds if wanted.

    Args:
        folder: Where.
        setting: How noise is found.
        samples: The images.
        model: What the folder is about: the student's config, in plain words.
        batch: Images at once.
        rows: At most so many images with noise go through the network at once.
        screen: Where progress is told.

    Raises:
        ValueError: If the folder was made with another setting or for another network.
    """

    def __init__(
        self,
        folder: Path,
        setting: Setting,
        samples: Sequence[Sample],
        model: Any,
        batch: int = 8,
        rows: int = 96,
        screen: Screen | None = None,
    ) -> None:
        self.folder, self.setting, self.samples = folder, setting, list(samples)
        self.batch, self.rows, self.screen = batch, rows, screen or Screen()
        #: Images that were missing when it began, and when that was; for progress.
        self.total, self.begun, self._done = 0, 0.0, 0
        self._images: dict[tuple[int, int], str] = {}
        wanted = json.loads(json.dumps({'version': _VERSION, **asdict(setting), 'model': model}, default=str))
        file = folder / 'settings.json'
        if file.is_file():
            there = json.loads(file.read_text())
            if there != wanted:
                old, new = flatten(there), flatten(wanted)
                keys = [key for key in {**old, **new} if old.get(key, 'none') != new.get(key, 'none')]
                changed = '; '.join(f'{k}: {old.get(k, "none")} there, {new.get(k, "none")} now' for k in keys[:5])
                raise ValueError(
                    f"'{folder}' was made with other settings: {changed}. Remove it, or give another --work-dir"
                )
        elif folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"'{folder}' is there, and no folder of a study: remove it, or give another --work-dir")
        else:
            write_text(file, json.dumps(wanted, indent=1))

    def _file(self, digest: str, tap: Tap, sample: Sample) -> Path:
        # the words are for the reader; taps that differ in signs alone are told apart by the rest
        slug = re.sub(r'\W+', '-', str(tap)).strip('-') + '-' + hashlib.sha256(str(tap).encode()).hexdigest()[:6]
        return self.folder / 'sigma' / digest / slug / f'{sample.index}.npz'

    def missing(self, checkpoint: Checkpoint, tap: Tap) -> list[Sample]:
        """Images that are not there yet."""
        return [sample for sample in self.samples if not self._file(checkpoint.digest, tap, sample).is_file()]

    def passes(self, runs: Sequence[Run], taps: Sequence[Tap]) -> int:
        """How many images still have to go through networks."""
        there = {(c.digest, tap): c for run in runs for c in run.checkpoints for tap in taps}
        return sum(len(self.missing(c, tap)) for (_, tap), c in there.items()) * self.setting.passes

    def estimate(self, models: Sequence[tuple[Any, Sequence[Run]]], taps: Sequence[Tap]) -> float:
        """Seconds that what is missing takes, by a few steps.

        Args:
            models: Networks, each with its runs.
            taps: Where they are read.
        """
        seconds = 0.0
        for model, runs in models:
            for tap in taps:
                passes = self.passes(runs, [tap])
                if passes:
                    images = inputs_of(model, self.samples[0].batch)
                    feature = self._feature(model, tap, images, runs[0].role)
                    short = replace(self.setting, steps=2, noise=min(self.setting.noise, self.rows))
                    # as many at once as there will be
                    images = torch.cat([images] * max(1, min(self.batch, self.rows // short.noise)))
                    discard(feature, images, short, rows=self.rows)  # the first is slower
                    begun = time.monotonic()
                    discard(feature, images, short, rows=self.rows)
                    seconds += (time.monotonic() - begun) / (short.passes * len(images)) * passes
        return seconds

    def _feature(self, model: Any, tap: Tap, images: Tensor, role: str) -> Tapped:
        tapped = Tapped(network_of(model, role), tap, images)
        return made_faster(tapped, torch.cat([images, images.flip(-1)]))

    def fill(self, model: Any, runs: Sequence[Run], taps: Sequence[Tap], load: bool = True) -> None:
        """Find what is missing of some runs of a network.

        Args:
            model: The network.
            runs: Of it.
            taps: Where it is read.
            load: Whether its weights are those of the checkpoints' files, or are there.
        """
        for run in runs:
            for checkpoint in run.checkpoints:
                if not any(self.missing(checkpoint, tap) for tap in taps):
                    continue
                if load:
                    state = state_dict_of(read_checkpoint(checkpoint.path), checkpoint.path)
                    load_exactly(model, state, checkpoint.path)
                for tap in taps:
                    self._fill(model, run, checkpoint, tap)

    def _fill(self, model: Any, run: Run, checkpoint: Checkpoint, tap: Tap) -> None:
        feature: Tapped | None = None
        # images of one size go together
        by_size: dict[tuple[int, ...], list[tuple[Sample, Tensor]]] = {}
        for sample in self.missing(checkpoint, tap):
            inputs = inputs_of(model, sample.batch)
            if tuple(inputs.shape[-2:]) != sample.padded:
                raise ValueError(
                    f'the {run.role} gets image {sample.index} with {tuple(inputs.shape[-2:])} pixels and the student '
                    f'with {sample.padded}: cells would be other places'
                )
            by_size.setdefault(tuple(inputs.shape), []).append((sample, inputs))
        for group in by_size.values():
            for begin in range(0, len(group), self.batch):
                some = group[begin : begin + self.batch]
                images = torch.cat([inputs for _, inputs in some])
                feature = feature or self._feature(model, tap, images[:1], run.role)
                valid = torch.stack([sample.valid for sample, _ in some])
                keys = [sample.index for sample, _ in some]
                found = discard(feature, images, self.setting, keys, valid.to(images.device), self.rows)
                for i, (sample, inputs) in enumerate(some):
                    values = {
                        'sigma': found.sigma[i], 'scale': found.scale[i], 'step': found.step[i],
                        'usable': found.usable[i],
                    }  # fmt: skip
                    arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in values.items()}
                    arrays['image'] = np.array(digest_of(inputs, sample.valid))
                    buffer = io.BytesIO()
                    np.savez(buffer, **arrays)
                    write_bytes(self._file(checkpoint.digest, tap, sample), buffer.getvalue())
                self._done += len(some)
                self.screen.show(lambda: self._state(run, checkpoint, tap))

    def start(self, work: Sequence[tuple[Sequence[Run], Sequence[Tap]]]) -> None:
        """Remember what has to be done, for progress."""
        self.total = sum(self.passes(runs, taps) for runs, taps in work) // self.setting.passes
        self.begun, self._done = time.monotonic(), 0

    def _state(self, run: Run, checkpoint: Checkpoint, tap: Tap) -> str:
        left = (time.monotonic() - self.begun) / max(self._done, 1) * (self.total - self._done)
        return (
            f'{self._done} of {self.total} images | {run.role} {checkpoint.path} at {tap} | about {duration(left)} left'
        )

    def check(self, model: Any, runs: Sequence[Run], taps: Sequence[Tap]) -> None:
        """See that what is there is whole, and of these images.

        Raises:
            ValueError: If a file is damaged, or of another image.
        """
        for tap in taps:
            for checkpoint in (checkpoint for run in runs for checkpoint in run.checkpoints):
                missing = {sample.index for sample in self.missing(checkpoint, tap)}
                for sample in self.samples:
                    if sample.index not in missing:
                        self._load(model, checkpoint, tap, sample)

    def read(self, model: Any, run: Run, tap: Tap) -> list[Found]:
        """What was found of a run, checkpoint by checkpoint.

        Raises:
            ValueError: If a file is damaged, or of another image.
        """
        found = []
        for checkpoint in run.checkpoints:
            values = [self._load(model, checkpoint, tap, sample) for sample in self.samples]
            sigma, usable = zip(*values, strict=True)
            found.append(Found(entropy(torch.stack(sigma)), torch.tensor(usable)))
        return found

    def _load(self, model: Any, checkpoint: Checkpoint, tap: Tap, sample: Sample) -> tuple[Tensor, bool]:
        """Standard deviations of an image, and whether they can be used."""
        path = self._file(checkpoint.digest, tap, sample)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                image, sigma, usable = str(arrays['image']), torch.from_numpy(arrays['sigma']), bool(arrays['usable'])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"'{path}' is damaged ({error}): remove it, and it is found anew") from error
        if image != self._image(model, sample):
            raise ValueError(
                f"'{path}' is of another image than image {sample.index} ({sample.name}) is now, or of other padding: "
                'give another --work-dir'
            )
        return sigma, usable

    def _image(self, model: Any, sample: Sample) -> str:
        key = (id(model), sample.index)
        if key not in self._images:
            self._images[key] = digest_of(inputs_of(model, sample.batch), sample.valid)
        return self._images[key]
