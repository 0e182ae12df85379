"""A run of a comparison: its folder, whether it is finished, and what came out."""

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import write_text
from .entries import Entry

_CHECKPOINT = re.compile(r'(?:epoch|iter)_(\d+)')


@dataclasses.dataclass
class Result:
    """What a finished run gave.

    Attributes:
        metrics: Of the validation at its end, as the evaluator logs them, and ``teacher/...`` beside them.
        step_time: Seconds of an iteration: the median over the log, without the first interval. None if there is no
            second one.
        memory: Peak in MiB.
        on_gpu: Whether that is what was allocated on a GPU, or what was resident of the process.
        seconds: Of the whole process; None if it was killed and resumed.
        jobs: How many runs there were at once.
        threads: Of each of them.
        parameters: As :func:`.parameters_of` counts, empty if that failed.
    """

    metrics: dict[str, float]
    step_time: float | None
    memory: float
    on_gpu: bool
    seconds: float | None
    jobs: int
    threads: int
    parameters: dict[str, int] = dataclasses.field(default_factory=dict)


class Run:
    """A config and a seed, in a folder of their own.

    ``run.json`` in it holds the whole config that it was begun with, and once it has ended, what came out. So it is
    neither trained twice nor taken for the run of another config.

    Args:
        entry: The config.
        seed: Goes to ``randomness.seed``.
        folder: Where it is.
    """

    def __init__(self, entry: Entry, seed: int, folder: Path) -> None:
        self.entry = entry
        self.seed = seed
        self.folder = folder
        self._config = entry.resolved(seed)
        self._file = folder / 'run.json'
        #: What came out, if it is finished.
        self.result: Result | None = None
        #: Why it is not, if it has failed.
        self.failure: str | None = None
        self._read()

    def __str__(self) -> str:
        return f'{self.entry.name}, seed {self.seed}'

    @property
    def log(self) -> Path:
        """All that its process printed."""
        return self.folder / 'train.log'

    def _read(self) -> None:
        """Take over what is there.

        Raises:
            ValueError: If it is of another config.
        """
        if not self._file.is_file():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise ValueError(
                    f"'{self.folder}' is there, and no run of a comparison or chain: remove it, or give another "
                    '--work-dir'
                )
            return
        found = json.loads(self._file.read_text())
        if found['config'] != self._config:
            there, wanted = flatten(found['config']), flatten(self._config)
            keys = [key for key in {**there, **wanted} if there.get(key, 'none') != wanted.get(key, 'none')]
            changes = [f'{key}: {there.get(key, "none")} there, {wanted.get(key, "none")} now' for key in keys[:5]]
            raise ValueError(
                f"'{self.folder}' was trained with another config or other options: {'; '.join(changes)}"
                f'{"; ..." if len(keys) > 5 else ""}. Remove that folder to train it anew, or give another --work-dir'
            )
        self.failure = found.get('failure')
        if found.get('result'):
            self.result = Result(**found['result'])

    def _write(self) -> None:
        result = dataclasses.asdict(self.result) if self.result else None
        content = {'config': self._config, 'result': result, 'failure': self.failure}
        write_text(self._file, json.dumps(content, indent=1))

    def begin(self) -> None:
        """Before its process is started."""
        self.failure = None
        self._write()

    def finish(self, result: Result) -> None:
        """After its process has ended well."""
        self.result, self.failure = result, None
        self._write()

    def fail(self, why: str) -> None:
        """After it has ended otherwise."""
        self.failure = why
        self._write()

    def checkpoints(self) -> list[Path]:
        """Those to resume from, oldest first."""
        found = [(int(match[1]), path) for path in self.folder.glob('*.pth')
                 if (match := _CHECKPOINT.fullmatch(path.stem))]  # fmt: skip
        return [path for _, path in sorted(found)]

    def measured(self) -> tuple[dict[str, float], float | None, float | None]:
        """What its logs say: metrics of the validation at the end, seconds of a step, MiB on the GPU if there is one.

        Raises:
            ValueError: If nothing was logged after the last training iterations.
        """
        metrics: dict[str, float] = {}
        times: list[float] = []
        memory: list[float] = []
        for file in sorted(self.folder.glob('*/vis_data/scalars.json')):
            trained = [record for record in _records(file) if 'iter' in record]
            times += [float(record['time']) for record in trained[1:] if 'time' in record]
            memory += [float(record['memory']) for record in trained if 'memory' in record]
            for record in _records(file):
                numbers = {} if 'iter' in record else record
                metrics = {
                    key.removeprefix('val/'): float(value)
                    for key, value in numbers.items()
                    if key.removeprefix('val/') not in ('step', 'time', 'data_time')
                    and isinstance(value, (int, float)) and math.isfinite(value)
                }  # fmt: skip
        if not metrics:
            raise ValueError(
                'no metrics were logged at the end of training: the config needs a val_evaluator, and LocalVisBackend '
                'among the vis_backends of its visualizer'
            )
        return metrics, statistics.median(times) if times else None, max(memory, default=None)


def _records(file: Path) -> Iterator[dict[str, Any]]:
    """Lines of a log of mmengine's; the last may be cut, where the run was killed."""
    for line in file.read_text(errors='replace').splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield {key.removeprefix('train/'): value for key, value in record.items()}


def flatten(value: Any, path: str = '') -> dict[str, Any]:
    """Nested dictionaries and lists as one, by dotted path."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f'{path}.{key}' if path else str(key))
    return flat


def plan_runs(entries: Sequence[Entry], seeds: int, work_dir: Path) -> list[Run]:
    """All runs of a comparison in the order in which they are trained: every config with seed 0, then with seed 1 ...

    Raises:
        ValueError: If the folder holds runs of other configs.
    """
    known = {entry.folder for entry in entries}
    others = sorted({path.parts[-3] for path in work_dir.glob('*/seed*/run.json')} - known)
    if others:
        raise ValueError(
            f"'{work_dir}' holds another comparison, with runs of {', '.join(others)}: name their configs as well, "
            'remove their folders, or give another --work-dir'
        )
    return [Run(entry, seed, work_dir / entry.folder / f'seed{seed}') for seed in range(seeds) for entry in entries]
