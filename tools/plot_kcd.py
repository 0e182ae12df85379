#!/usr/bin/env python
# ruff: noqa: E402 (arguments are read before the imports that take seconds)
"""Draw what KCD did in a run: values in each round, samples that move between sets, hardest and easiest images.

Reads the tables that KCDHook writes into WORK_DIR/kcd. Writes values.png, flow.png and samples.png.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', help='of a run with KCDHook')
    parser.add_argument('--out-dir', help='default: WORK_DIR/kcd')
    parser.add_argument('--images', type=int, default=8, metavar='N', help='so many of either kind (default 8)')
    parser.add_argument(
        '--config', help='whose training data has the images that are no files; default: the one in WORK_DIR'
    )
    return parser.parse_args()


if __name__ == '__main__':
    parse()  # answers --help and slips at once: the imports below take seconds

from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

import mmkd_plugin  # noqa: F401 (registers)
from mmkd_plugin.analysis.pictures import original_image
from mmkd_plugin.files.atomic import write_bytes
from mmkd_plugin.files.configs import read_config
from mmkd_plugin.kcd import plots as plots


def main() -> None:
    """Draw, and say where the pictures are."""
    args = parse()
    out_dir = Path(args.out_dir or Path(args.work_dir) / 'kcd')
    try:
        if not 1 <= args.images <= 200:
            raise ValueError(f'--images {args.images} given, expected 1 to 200')
        config = read_config(args.config)[0] if args.config else None
        rounds = plots.read_rounds(Path(args.work_dir) / 'kcd')
        save(plots.draw_values(rounds), out_dir / 'values.png')
        save(plots.draw_flow(rounds), out_dir / 'flow.png')
    except (ModuleNotFoundError, OSError, ValueError) as error:
        raise SystemExit(f'plot_kcd.py: {error}') from error
    hardest, easiest = plots.extremes(rounds[-1], args.images)
    try:
        images = read_images(rounds[-1].paths, [*hardest, *easiest], Path(args.work_dir), config)
    except ValueError as error:
        print(f'samples.png is left out: {error}')
    else:
        save(plots.draw_samples(rounds[-1], hardest, easiest, images), out_dir / 'samples.png')


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all."""
    data = io.BytesIO()
    figure.savefig(data, format='png', dpi=150)
    write_bytes(path, data.getvalue())
    print(path)


def read_images(paths: Sequence[str], samples: Sequence[int], work_dir: Path, config: Config | None) -> dict[int, Any]:
    """Images, RGB (H, W, 3): the files that the table names, else what the config's training data has.

    Raises:
        ValueError: If they cannot be found.
    """
    if not samples:
        raise ValueError('no sample has a value yet')
    infos: dict[int, Any] = {sample: {'img_path': paths[sample]} for sample in samples}
    missing = [sample for sample in infos if not Path(paths[sample]).is_file()]
    reverse, backend = False, None
    try:
        if missing:
            config = config or only_config(work_dir)
            init_default_scope(config.get('default_scope', 'mmengine'))
            data = DATASETS.build(config.train_dataloader.dataset)
            if len(data) != len(paths):
                raise ValueError(f'{config.filename} has {len(data)} samples, the tables {len(paths)}')
            for sample in missing:
                infos[sample] = data.get_data_info(sample)
                name = Path(infos[sample].get('img_path') or '').name
                if name != Path(paths[sample]).name:
                    raise ValueError(
                        f"sample {sample} of {config.filename} is '{name}', of the tables '{paths[sample]}'"
                    )
            preprocessor = config.get('data_preprocessor') or config.model.get('data_preprocessor') or {}
            reverse = any(preprocessor.get(name) for name in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
            backend = getattr(data, 'backend_args', None)
        return {sample: original_image(info, reverse, backend) for sample, info in infos.items()}
    except Exception as error:  # whatever data sets, configs and files raise
        if not missing:
            raise ValueError(str(error)) from error
        raise ValueError(
            f"sample {missing[0]} ('{paths[missing[0]]}') is no file here, and no training data gives its image "
            f'({type(error).__name__}: {error}): say --config CONFIG'
        ) from error


def only_config(work_dir: Path) -> Config:
    """What mmengine writes into a run's folder.

    Raises:
        ValueError: If there are none or several.
    """
    configs = list(work_dir.glob('*.py'))
    if len(configs) != 1:
        raise ValueError(f"'{work_dir}' has {len(configs)} configs, expected one, the run's")
    return Config.fromfile(configs[0])


if __name__ == '__main__':
    main()
