#!/usr/bin/env python
"""Measure finding what a layer discards: images together on a prepared network against one image after another.

The second way is that of a loop as one would write it: the network as it is, whose weights want gradients. In between:
one after another on the prepared network. Rounds are interleaved, and the median is printed with the range.
"""

import argparse
import statistics
import time
from collections.abc import Callable


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='mmpretrain::resnet/resnet18_8xb32_in1k.py', help='default: ResNet-18')
    parser.add_argument('--tap', default='backbone', help='default: backbone')
    parser.add_argument('--size', type=int, default=224, help='of images in pixels (default 224)')
    parser.add_argument('--cells', type=int, default=16, help='in each direction (default 16)')
    parser.add_argument('--noise', type=int, default=96, help='samples in each step (default 96)')
    parser.add_argument('--images', type=int, default=4, help='default 4')
    parser.add_argument('--steps', type=int, default=2, help='of the optimiser (default 2)')
    parser.add_argument('--rows', type=int, default=96, help='images with noise at once (default 96)')
    parser.add_argument('--rounds', type=int, default=3, help='default 3')
    parser.add_argument('--threads', type=int, default=2, help='default 2')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    return parser.parse_args()


if __name__ == '__main__':
    parse()  # answers --help and slips at once: the imports below take seconds

import resource  # noqa: E402

import torch  # noqa: E402
from mmengine.registry import MODELS, init_default_scope  # noqa: E402

import mmkd_plugin  # noqa: E402, F401 (registers)
from mmkd_plugin.analysis.discarding import Setting, discard  # noqa: E402
from mmkd_plugin.analysis.features import Tapped, made_faster, still  # noqa: E402
from mmkd_plugin.files.configs import read_config  # noqa: E402
from mmkd_plugin.networks import Tap, network_of  # noqa: E402
from mmkd_plugin.teachers.network_spec import model_of  # noqa: E402


def main() -> None:
    """Measure, and print."""
    args = parse()
    torch.set_num_threads(args.threads)
    config, _ = read_config(args.config)
    init_default_scope(config.get('default_scope', 'mmengine'))
    torch.manual_seed(0)
    model = MODELS.build(model_of(config, args.config))
    model.to(args.device).eval()
    images = torch.randn(args.images, 3, args.size, args.size).to(args.device)
    setting = Setting(cells=args.cells, noise=args.noise, steps=args.steps, weight=6.0)
    plain = Tapped(network_of(model), Tap.parse(args.tap), images)
    with still(model):
        faster = made_faster(plain, images[:2])

    def alone(feature: Tapped) -> torch.Tensor:
        parts = [discard(feature, images[i : i + 1], setting, [i], rows=args.rows) for i in range(args.images)]
        return torch.cat([part.sigma for part in parts])

    ways: dict[str, Callable[[], torch.Tensor]] = {
        'together, prepared': lambda: discard(faster, images, setting, rows=args.rows).sigma,
        'one after another, prepared': lambda: alone(faster),
        'one after another': lambda: alone(plain),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, torch.Tensor] = {}
    memory: dict[str, float] = {}
    for _ in range(args.rounds):
        for way, run in ways.items():
            begun = time.monotonic()
            found[way] = run().cpu()  # which waits for the device
            times[way].append(time.monotonic() - begun)
            memory.setdefault(way, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    steps = args.images * args.steps
    for way, seconds in times.items():
        middle, first = statistics.median(seconds) / steps, times['one after another']
        ratio = [a / b for a, b in zip(first, seconds, strict=True)]
        print(
            f'{way}: {middle:.2f} s an image and step ({min(seconds) / steps:.2f} to {max(seconds) / steps:.2f}), '
            f'{statistics.median(ratio):.2f} times as fast ({min(ratio):.2f} to {max(ratio):.2f}); peak of the process '
            f'so far {memory[way]:,.0f} MiB; largest relative difference '
            f'{float((found[way] / found["one after another"] - 1).abs().max()):.1e}',
            flush=True,
        )


if __name__ == '__main__':
    main()
