#!/usr/bin/env python
# ruff: noqa: E402 (arguments are read before the imports that take seconds)
"""Measure what distillation costs: c / (a + b), in one run, interleaved.

(a) one training step of the plain student, (b) the plain teacher's forward pass alone, without any
of our optimisations, (c) one step of the distilled student. 1.00 means that distillation costs
exactly its two parts. What a peer adds to (b) is its own plain training step. For a detector (b) is
backbone, neck and the box head on as many RoIs as the student samples; no RPN. Random images; teacher
weights are not loaded. Data loading is not measured: on a GPU the batch lies there, and a round is several steps
between two synchronisations, as training does not wait for each. Quote the ratio: single times differ from machine to
machine and from run to run.
"""

import argparse
import copy
import gc
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a distilled config')
    parser.add_argument(
        '--image-size', type=int, nargs='+', default=[224], metavar='N', help='side, or height and width'
    )
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='default: cuda where it is usable')
    parser.add_argument('--amp', action='store_true', help='mixed precision (needs a GPU)')
    parser.add_argument('--precision', choices=['fp32', 'bf16', 'fp16'], help='what frozen teachers of (c) compute in')
    parser.add_argument('--compile', action='store_true', help='compile frozen teachers of (c); give more --warmup')
    parser.add_argument('--stream', action='store_true', help='frozen teachers of (c) on a stream of their own (GPU)')
    parser.add_argument('--rounds', type=int, default=10, help='measured rounds of a, b, c (default 10)')
    parser.add_argument('--warmup', type=int, default=2, help='rounds before (default 2)')
    parser.add_argument('--steps', type=int, help='in a round of each (default: 1, on a GPU 5)')
    parser.add_argument('--threads', type=int, help="CPU threads; default: torch's own number")
    parser.add_argument(
        '--cpu-time', action='store_true', help='time on the CPU, all threads added, where others use it as well'
    )
    parser.add_argument('--no-memory', action='store_true', help='skip the memory measurement')
    args = parser.parse_args()
    if args.rounds < 1 or (args.steps is not None and args.steps < 1):
        parser.error(f'--rounds {args.rounds} --steps {args.steps} given, expected at least 1')
    return args


if __name__ == '__main__':
    parse()  # answers --help and slips at once: the imports below take seconds

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

import mmkd_plugin  # noqa: F401 (registers)
from mmkd_plugin.files.configs import read_config
from mmkd_plugin.networks import network_of
from mmkd_plugin.optim import amp_type, of_learner, without_bound
from mmkd_plugin.teachers import build_source, plain_student, untrained

Step = Callable[[], Any]
OBJECTS = 8  # in an image, for detectors


def make_batch(config: Config, shape: tuple[int, int, int], size: int) -> dict[str, Any]:
    """A batch as the data loader gives it: uint8 images and labelled data samples."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, *shape), generator=generator, dtype=torch.uint8)
    if 'roi_head' not in config.model and 'bbox_head' not in config.model:
        from mmpretrain.structures import DataSample

        classes = config.model.head.num_classes
        return {'inputs': images, 'data_samples': [DataSample().set_gt_label(i % classes) for i in range(size)]}

    from mmdet.structures import DetDataSample

    samples = []
    for _ in range(size):
        sides = {'img_shape': shape[1:], 'ori_shape': shape[1:], 'scale_factor': (1.0, 1.0)}
        samples.append(DetDataSample(metainfo=sides))
        boxes = random_boxes(OBJECTS, shape[1:], generator)
        samples[-1].gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(OBJECTS, dtype=torch.int64))
    return {'inputs': list(images), 'data_samples': samples}


def on_device(batch: dict[str, Any], device: str) -> dict[str, Any]:
    """The batch on a device: reading and copying it are the data loader's."""
    images, samples = batch['inputs'], batch['data_samples']
    moved = [image.to(device) for image in images] if isinstance(images, list) else images.to(device)
    return {'inputs': moved, 'data_samples': [sample.to(device) for sample in samples]}


def random_boxes(count: int, sides: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Boxes (count, 4) of an eighth to half of the image's (height, width)."""
    extent = torch.tensor([sides[1], sides[0]]) * (0.125 + 0.375 * torch.rand(count, 2, generator=generator))
    corner = (torch.tensor([sides[1], sides[0]]) - extent) * torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + extent], dim=1)


def training_step(
    model: Any, config: Config, batch: dict[str, Any], device: str, amp: bool, name: str = 'student'
) -> Step:
    """A whole `train_step`, with the config's own optimizer; that of a learner, where each has one."""
    plain = not hasattr(model, 'distill')
    wrapper = without_bound(of_learner(config.optim_wrapper, name)) if plain else dict(config.optim_wrapper)
    if amp:
        wrapper.update(type=amp_type(wrapper.get('type')), loss_scale='dynamic')
    MessageHub.get_current_instance().update_info('epoch', 0)  # for what depends on it
    model = model.to(device).train()
    optimizer = build_optim_wrapper(model, wrapper)
    groups = optimizer.param_groups
    for group in itertools.chain(*groups.values()) if isinstance(groups, dict) else groups:
        group['lr'] = 0.0  # the same work, and random images cannot drive untrained weights to infinity
    return lambda: model.train_step(copy.copy(batch), optimizer)


def other_networks(plain: Any, config: Config, batch: dict[str, Any], device: str, amp: bool) -> Step:
    """Every network beside the student's, plainly: a training step of what learns, and a pass of what does not."""
    specs = config.model.get('teachers') or {'teacher': config.model.get('teacher')}
    sources = [build_source(untrained(spec), name, plain) for name, spec in specs.items() if spec]
    networks = [source for source in sources if source.model is not None]
    steps = [
        training_step(source.model, config, batch, device, amp, source.name)
        for source in networks
        if source.learns and source.apart
    ]
    if fixed := [source.model for source in networks if not source.learns]:
        steps.append(teacher_forward(fixed, config, batch, device, amp))
    return lambda: [step() for step in steps]


def teacher_forward(teachers: list[Any], config: Config, batch: dict[str, Any], device: str, amp: bool) -> Step:
    """Of teachers that do not learn: evaluation mode, no gradient, whole network."""
    teachers = [teacher.to(device) for teacher in teachers]
    images = [t.data_preprocessor(copy.copy(batch))['inputs'] for t in teachers]
    networks = [network_of(t) for t in teachers]
    rois = [{branch: sampled_rois(config, batch).to(device) for branch in n.branches()} for n in networks]
    for teacher in teachers:
        teacher.eval()

    @torch.no_grad()
    def step() -> None:
        with torch.autocast(device, enabled=amp):
            for network, inputs, boxes in zip(networks, images, rois, strict=True):
                # of a two-stage detector no more than a loss could read of it with the student's RoIs
                network.run(inputs, () if boxes else None, boxes)

    return step


def sampled_rois(config: Config, batch: dict[str, Any]) -> torch.Tensor:
    """As many RoIs (R, 5) as the student samples at most."""
    rcnn = config.model.train_cfg.rcnn
    count = (rcnn[0] if isinstance(rcnn, list) else rcnn).sampler.num
    sides = tuple(batch['inputs'][0].shape[-2:])
    boxes = [random_boxes(count, sides, torch.Generator().manual_seed(i)) for i in range(len(batch['inputs']))]
    return torch.cat([torch.cat([torch.full((count, 1), float(i)), b], dim=1) for i, b in enumerate(boxes)])


def make_steps(args: argparse.Namespace, which: str = 'abc') -> dict[str, Step]:
    """The steps to measure, by letter."""
    try:
        config, _ = read_config(args.config)
    except (FileNotFoundError, ModuleNotFoundError) as error:
        raise SystemExit(str(error)) from error
    init_default_scope(config.get('default_scope', 'mmengine'))
    if 'mask_head' in (config.model.get('roi_head') or {}):
        raise SystemExit(f'{args.config}: this benchmark makes no masks; expected a detector of boxes')
    if config.model.type != 'Distilled':
        raise SystemExit(f"{args.config}: the model is a {config.model.type}, expected type='Distilled'")
    if 'data_preprocessor' in config:
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    for key in ('teacher', 'teachers'):
        if (spec := config.model.get(key)) is not None:
            config.model[key] = (
                untrained(spec) if key == 'teacher' else {name: untrained(s) for name, s in spec.items()}
            )
    plain = MODELS.build(plain_student(copy.deepcopy(config.model)))
    channels = network_of(plain).input_shape()[0]
    batch = make_batch(config, (channels, args.image_size[0], args.image_size[-1]), args.batch_size)
    batch = on_device(batch, args.device)
    common = (config, batch, args.device, args.amp)
    steps = {}
    if 'a' in which:
        steps['a'] = training_step(plain, *common)
    if 'b' in which:
        steps['b'] = other_networks(plain, *common)
    if 'c' in which:
        specs = config.model.get('teachers') or {'teacher': config.model.get('teacher')}
        for spec in filter(None, specs.values()):
            if spec.get('untrained'):  # random weights tell images less apart than trained ones
                precision = dict(type=args.precision, tolerance=1.0) if args.precision in ('bf16', 'fp16') else None
                given = dict(precision=precision or args.precision, compile=args.compile, stream=args.stream)
                spec.update({key: value for key, value in given.items() if value})
        steps['c'] = training_step(MODELS.build(copy.deepcopy(config.model)), *common)
    return steps


def seconds(step: Step, device: str, cpu_time: bool = False) -> float:
    """Wall time of one call, the device's work included; or the time that this process had the CPU."""
    clock = time.process_time if cpu_time else time.perf_counter
    if device == 'cuda':
        torch.cuda.synchronize()
    start = clock()
    step()
    if device == 'cuda':
        torch.cuda.synchronize()
    return clock() - start


def repeat(step: Step, count: int) -> None:
    """Some steps, one after the other."""
    for _ in range(count):
        step()


def peak_memory(args: argparse.Namespace, which: str, result: Any) -> None:
    """Peak MiB of two steps alone: the resident set of a process of its own."""
    torch.set_num_threads(args.threads)
    step = make_steps(args, which)[which]
    step()
    step()
    # not getrusage: its maximum is inherited from the parent process
    status = Path('/proc/self/status').read_text()
    result.put(int(status.split('VmHWM:')[1].split()[0]) / 2**10)


def allocated(args: argparse.Namespace, which: str) -> float:
    """Peak MiB of two steps alone, as torch's allocator counts them; to be asked before other steps are made."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step = make_steps(args, which)[which]
    step()
    step()
    return float(torch.cuda.max_memory_allocated()) / 2**20


def measure_memory(args: argparse.Namespace, which: str) -> float:
    """Peak MiB of two steps: on a CPU in a fresh process, since what this one held at most is not known to be these."""
    if args.device == 'cuda':
        return allocated(args, which)
    context = multiprocessing.get_context('spawn')
    queue = context.Queue()
    process = context.Process(target=peak_memory, args=(args, which, queue))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f'the process that measures memory ended with {process.exitcode}; --no-memory leaves it out')
    value = queue.get()
    return float(value)


def spread(values: list[float], scale: float = 1.0, digits: int = 1) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f'{middle * scale:.{digits}f} ({low * scale:.{digits}f} to {high * scale:.{digits}f})'


def main() -> None:
    """Measure and print."""
    args = parse()
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    args.threads = args.threads or torch.get_num_threads()
    args.steps = args.steps or (5 if args.device == 'cuda' else 1)
    if args.amp and args.device == 'cpu':
        raise SystemExit("--amp needs --device cuda: mmengine's AmpOptimWrapper runs on no CPU")
    torch.set_num_threads(args.threads)

    memory = {} if args.no_memory else {which: measure_memory(args, which) for which in 'ac'}
    gc.collect()
    steps = make_steps(args)
    times: dict[str, list[float]] = {letter: [] for letter in steps}
    for round_ in range(args.warmup + args.rounds):
        for letter, step in steps.items():
            elapsed = seconds(partial(repeat, step, args.steps), args.device, args.cpu_time) / args.steps
            if round_ >= args.warmup:
                times[letter].append(elapsed)
    ratios = [c / (a + b) for a, b, c in zip(*times.values(), strict=True)]

    where = torch.cuda.get_device_name() if args.device == 'cuda' else f'CPU, {args.threads} threads'
    size = 'x'.join(map(str, args.image_size))
    teacher = [args.precision or '', 'compiled' * args.compile, 'with a stream' * args.stream]
    where += ', CPU time' * args.cpu_time
    where += ''.join(f', teacher {how}' for how in teacher if how)
    print(
        f'{args.config}: {size} px, batch {args.batch_size}, AMP {"on" if args.amp else "off"}, '
        f'{where}, torch {torch.__version__}, {args.rounds} interleaved rounds'
        f'{f" of {args.steps} steps" if args.steps > 1 else ""}; median (min to max)'
    )
    print(f'a  plain student step      {spread(times["a"], 1e3)} ms')
    print(f'b  other networks alone    {spread(times["b"], 1e3)} ms')
    print(f'c  distillation step       {spread(times["c"], 1e3)} ms')
    print(f'c / (a + b)                {spread(ratios, 1, 3)}')
    if memory:
        kind = 'allocated on the GPU' if args.device == 'cuda' else 'resident set of the process'
        print(f'peak memory ({kind}): plain {memory["a"]:.0f} MiB, distilled {memory["c"]:.0f} MiB')


if __name__ == '__main__':
    main()
