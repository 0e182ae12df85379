"""A whole study: everything is checked, then what is missing is found, then written down."""

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope

from ...experiments.screen import Screen, duration
from ...files.atomic import write_text
from ...files.configs import read_config
from ...networks import Tap, network_of
from ...teachers.network_spec import model_of
from ..discarding import Setting
from ..features import Tapped
from .measures import Measured, choose, measure
from .networks import Checkpoint, Run, between_checkpoints, build_student, prepare, read_runs, teachers_of
from .networks import digest_of as digest_of_weights
from .page import write_page
from .pictures import draw
from .samples import first_inputs, inputs_of, read_samples
from .table import Report, compare
from .work import Study

# the paper's own: images, checkpoints of a run
_PAPER = (50, 15)


class _Place(NamedTuple):
    """Where the student is read, where the teachers, and whose weights make the path."""

    student: Tap
    teacher: Tap
    layer: str


def explain(args: argparse.Namespace, occupy: Callable[[Path], AbstractContextManager[Any]] = nullcontext) -> str:
    """What `tools/explain.py` does with its arguments.

    Args:
        args: Of the command line.
        occupy: Locks the work folder as long as it is worked in.

    Returns:
        The tables, and where everything is.

    Raises:
        ValueError: If anything does not fit, before the work begins.
        FileNotFoundError: If a checkpoint, folder or config is not there.
    """
    screen = Screen()
    config, _ = read_config(args.config)
    config.merge_from_dict(args.cfg_options or {})
    init_default_scope(config.get('default_scope', 'mmengine'))
    device = get_device()
    model = build_student(config)
    baselines = read_runs(args.baseline, 'baseline', args.checkpoints)
    students = read_runs(args.students, 'student', args.checkpoints)
    places = _read_places(args, model)
    _prepare(baselines, students, model, list(dict.fromkeys(place.layer for place in places)), screen)
    teachers = _teachers(config, model) if args.teacher else {}
    networks: list[tuple[Any, list[Run]]] = [
        (model.to(device), [*baselines, *students]),
        *((network.to(device), [run]) for network, run in teachers.values()),
    ]  # fmt: skip
    cells = _cells(args.cells, model, places, config)
    setting = Setting(cells=cells, noise=args.noise, steps=args.steps, weight=args.weight, seed=args.seed,
                      late=min(60, args.steps * 3 // 4))  # fmt: skip
    samples = read_samples(config, model, args.images, args.masks, cells, args.skip_empty)
    for network, runs in networks:
        _check_taps(network, runs[0].role, places, inputs_of(network, samples[0].batch))
    name = Path(args.config.rpartition('::')[2]).stem
    work_dir = args.work_dir or Path(config.get('work_dir') or Path('work_dirs') / name) / 'explain'
    out_dir = args.out_dir or work_dir
    about = Config({'model': model_of(config, args.config)}).to_dict()
    study = Study(work_dir, setting, samples, about, args.batch, args.rows, screen)
    with occupy(work_dir):
        _fill(study, networks, places)
        reports, pictures = [], []
        for place in places:
            report, chosen, measured = _compare(study, networks, baselines, students, place, args)
            reports.append(report)
            pictures.append(draw(out_dir, samples, chosen, report.tap, measured, config))
    tables = '\n'.join(report.markdown() for report in reports)
    write_text(out_dir / 'table.md', tables)
    write_text(out_dir / 'values.json', json.dumps([report.plain() for report in reports], indent=1))
    write_page(out_dir / 'page.html', reports, pictures, _told(args, setting, len(samples)))
    return f'{tables}\nWritten: {", ".join(str(out_dir / name) for name in ("table.md", "values.json", "page.html"))}'


def _told(args: argparse.Namespace, setting: Setting, count: int) -> dict[str, str]:
    return {
        'config': args.config,
        'student': ', '.join(args.students),
        'baseline': ', '.join(args.baseline),
        'images': f'{count} of the test data, foreground: {args.masks}',
        'cells': f'{setting.cells}x{setting.cells}',
        'noise': f'{setting.noise} samples, {setting.steps} steps, weight {setting.weight:g}, seed {setting.seed}',
        'concepts': f'{args.threshold:g} nats below the background of the {args.level}',
    }


def _read_places(args: argparse.Namespace, model: Any) -> list[_Place]:
    taps = args.tap
    if not taps:
        classifier = network_of(model).classifier()
        if classifier is None or classifier.below('roi_head'):
            raise ValueError("no --tap given, and the network has no classifier of images: name one, as in 'neck[0]'")
        taps = [str(classifier)]
    places = []
    for number, text in enumerate(taps):
        student, _, teacher = text.partition('=')
        tap = Tap.parse(student)
        layer = args.layer[number] if args.layer else tap.path
        places.append(_Place(tap, Tap.parse(teacher or student), layer))
    if len({place.student for place in places}) < len(places):
        raise ValueError(f'--tap {" ".join(taps)} given, expected each once')
    return places


def _prepare(
    baselines: Sequence[Run], students: Sequence[Run], model: Any, layers: Sequence[str], screen: Screen
) -> None:
    """Read all checkpoints, and see that paths are of one kind."""
    runs = [*baselines, *students]
    several = all(len(run.checkpoints) > 1 for run in runs)
    for run in runs:
        prepare(run, model, layers if several else ())
    last: dict[str, Run] = {}
    for run in runs:
        other = last.setdefault(run.checkpoints[-1].digest, run)
        if other is not run:
            raise ValueError(
                f"'{other.name}' ({other.role}) and '{run.name}' ({run.role}) end with the same weights, expected "
                'different runs'
            )
    if several and len({run.by_steps for run in runs}) > 1:
        screen.say('Not all runs tell the path over optimizer steps: it is that between checkpoints, for all of them.')
        for run in runs:
            if run.by_steps:
                between_checkpoints(run, model, layers)
    numbers = {tuple(checkpoint.number for checkpoint in run.checkpoints) for run in runs}
    if several and len(numbers) > 1:
        raise ValueError(
            f'runs have different checkpoints: {"; ".join(str(list(n)) for n in sorted(numbers))}. Expected the same '
            'of each, since more of them make longer paths and more concepts; PathLengthHook(at=...) keeps them'
        )


def _teachers(config: Config, model: Any) -> dict[str, tuple[Any, Run]]:
    found = {}
    for name, network in teachers_of(config, model).items():
        checkpoint = Checkpoint(-1, name, digest_of_weights(network.state_dict()))
        found[name] = (network, Run(name if 'teacher' in name else f'teacher {name}', name, [checkpoint]))
    return found


def _cells(given: str, model: Any, places: Sequence[_Place], config: Config) -> int:
    """A number of cells in each direction, or that of the tapped map's positions."""
    if given != 'tap':
        return int(given)
    shapes = []
    for place in places:
        shapes.append(Tapped(network_of(model), place.student, first_inputs(config, model)).shape)
        if len(shapes[-1]) != 3 or shapes[-1][1] != shapes[-1][2] or shapes[-1][1] < 2:
            raise ValueError(
                f"--cells tap: '{place.student}' gives {shapes[-1]} for an image, expected a square map (C, n, n) "
                'of more than one position: give a number of cells, or tap the backbone or the neck'
            )
    if len({shape[1] for shape in shapes}) > 1:
        raise ValueError(f'--cells tap: the taps have {shapes}, expected the same number of positions')
    return int(shapes[0][1])


def _check_taps(network: Any, role: str, places: Sequence[_Place], images: torch.Tensor) -> None:
    """See that every tap is there and has a row for each image."""
    for place in places:
        Tapped(network_of(network, role), place.teacher if role.startswith('teacher') else place.student, images)


def _fill(study: Study, networks: Sequence[tuple[Any, Sequence[Run]]], places: Sequence[_Place]) -> None:
    """Find what is missing, with its cost told before."""
    work = [(model, runs, [p.teacher if _is_teacher(runs) else p.student for p in places]) for model, runs in networks]
    for model, runs, taps in work:
        study.check(model, runs, taps)
    passes = sum(study.passes(runs, taps) for _, runs, taps in work)
    images, checkpoints = _PAPER
    looked_at = sum(len(run.checkpoints) for _, runs in networks for run in runs)
    study.screen.say(
        f'{len(study.samples)} images, {looked_at} checkpoints, '
        f'{len(places)} tap(s): {passes:,} passes of an image, forward and backward, are to be done '
        f"(the paper's setting, {images} images and {checkpoints} checkpoints, is "
        f'{images * checkpoints * Setting().passes:,} for each run and tap)'
    )
    if passes:
        seconds = sum(study.estimate([(model, runs)], taps) for model, runs, taps in work)
        study.screen.say(f'That takes about {duration(seconds)}. Everything is kept in {study.folder}')
    study.start([(runs, taps) for _, runs, taps in work])
    for model, runs, taps in work:
        study.fill(model, runs, taps, load=not _is_teacher(runs))


def _is_teacher(runs: Sequence[Run]) -> bool:
    return runs[0].role.startswith('teacher')


def _compare(
    study: Study,
    networks: Sequence[tuple[Any, Sequence[Run]]],
    baselines: Sequence[Run],
    students: Sequence[Run],
    place: _Place,
    args: argparse.Namespace,
) -> tuple[Report, torch.Tensor, list[Measured]]:
    """The measures at one tap, the images that they are of, and what they were made from."""
    model = networks[0][0]
    runs = [*baselines, *students]
    found = [study.read(model, run, place.student) for run in runs]
    chosen, left_out = choose(runs, found, study.samples, args.keep_all)
    for network, (run,) in networks[1:]:
        runs.append(run)
        found.append(study.read(network, run, place.teacher))
        chosen &= found[-1][0].usable
    measured = [
        measure(run, one, study.samples, chosen, place.layer, args.threshold, args.level)
        for run, one in zip(runs, found, strict=True)
    ]
    first, last = len(baselines), len(baselines) + len(students)
    sides = measured[:first], measured[first:last], measured[last:]
    return compare(str(place.student), *sides, left_out), chosen, measured
