"""Pictures: ground truth, teachers, plain and distilled student side by side."""

import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, VISUALIZERS, DefaultScope
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer
from torch import Tensor

from .comparison import REDUCTIONS, MapPair, View, build_contestants, is_map, look, no_map, read_map_pairs, reduce_map
from .painter import Painter


class Gallery:
    """Draws a config's validation images, and gives the pictures to the backends of its visualizer.

    Args:
        config: A distilled config, of detectors or classifiers.
        checkpoint: Of the distilled student.
        out_dir: Where backends write.
        plain: Checkpoint of the same student trained without a teacher; None leaves it out.
        taps: Where feature maps are read, see :func:`read_map_pairs`; None is everywhere that the config's losses
            read maps, an empty list nowhere.
        score_thr: Boxes with lower scores are left out.
        reduction: One of :data:`REDUCTIONS`.
        shared_scale: Colour the maps in a picture by their common range.
        size: Shorter side of a panel, in pixels.
        device: Where the models run.

    Raises:
        ValueError: If config, weights, taps or numbers are not what is needed.
        FileNotFoundError: If a file does not exist.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str,
        out_dir: str | Path,
        plain: str | None = None,
        taps: Sequence[str] | None = None,
        score_thr: float = 0.3,
        reduction: str = 'squeeze_mean',
        shared_scale: bool = False,
        size: int = 400,
        device: str = 'cpu',
    ) -> None:
        if not 0 <= score_thr <= 1 or size < 100 or reduction not in REDUCTIONS:
            raise ValueError(
                f'score_thr={score_thr}, size={size}, reduction={reduction!r} given, expected a score from 0 to 1, at '
                f'least 100 pixels, and one of {", ".join(REDUCTIONS)}'
            )
        with DefaultScope.overwrite_default_scope(config.get('default_scope')):
            self.contestants = build_contestants(config, checkpoint, plain)
            self.dataset = _dataset(config)
            painter, self.recorder = visualizers(config, Path(out_dir))
        painter.dataset_meta = self.dataset.metainfo
        self.painter = Painter(painter, size, score_thr)
        self.reduction, self.shared_scale = reduction, shared_scale
        for contestant in self.contestants:
            contestant.model.to(device)
            contestant.model.eval()  # apart: the eval() of mmpretrain's backbones returns None
        self.pairs = self._map_pairs(taps, config)

    def _map_pairs(self, taps: Sequence[str] | None, config: Config) -> list[MapPair]:
        """The pairs that read maps, found out on the first image.

        Raises:
            ValueError: If a model cannot be drawn, or a named tap is no map.
        """
        pairs = read_map_pairs(taps, config, [c.teacher for c in self.contestants if c.teacher])
        batch = pseudo_collate([self.dataset[0]])
        for contestant in self.contestants:
            view = look(contestant, batch, pairs)
            self._refuse_undrawable(view.sample, contestant.caption)
            for pair in list(pairs):
                tap = pair.tap(contestant)
                if tap is None or is_map(tap, view.values.get(tap)):
                    continue
                if taps is not None:
                    raise ValueError(no_map(tap, view.values.get(tap), contestant.caption))
                pairs.remove(pair)
        return pairs

    def _refuse_undrawable(self, sample: Any, caption: str) -> None:
        visualizer = self.painter.visualizer
        if 'pred_instances' not in sample and 'pred_label' not in sample:
            raise ValueError(f'the {caption} predicts {sorted(sample.keys())}, expected boxes or the class of an image')
        if 'pred_instances' in sample and type(visualizer).add_datasample is Visualizer.add_datasample:
            raise ValueError(
                f"the config's visualizer is a {type(visualizer).__name__}, which draws no boxes: give "
                "visualizer=dict(type='DetLocalVisualizer', ...)"
            )

    def choose(self, images: int = 4, indices: Sequence[int] | None = None) -> list[int]:
        """Which images to draw.

        Args:
            images: How many, spread evenly over the dataset.
            indices: Or which.

        Raises:
            ValueError: If there are not so many.
        """
        count = len(self.dataset)
        if indices is None and 1 <= images <= count:
            return [count * i // images for i in range(images)]
        if indices and all(0 <= index < count for index in indices):
            return list(dict.fromkeys(indices))
        given = f'images={images}' if indices is None else f'indices={list(indices)}'
        raise ValueError(f'{given} given, the validation data has {count} images, indices 0 to {count - 1}')

    def draw(self, index: int) -> dict[str, np.ndarray]:
        """The pictures of one image, after the backends have got them with its index as step.

        Returns:
            By name, RGB (H, W, 3): ``predictions``, and one for each feature map.
        """
        info = self.dataset.get_data_info(index)
        batch = pseudo_collate([self.dataset[index]])
        views = [look(contestant, batch, self.pairs) for contestant in self.contestants]
        pictures = {'predictions': self._predictions(info, views)}
        put_in = input_image(batch['inputs'][0], 'img' not in info or self._reverses_channels())
        for pair in self.pairs:
            pictures[self._name(pair)] = self._maps(pair, put_in, views)
        for name, picture in pictures.items():
            self.recorder.add_image(name, picture, step=index)
        return pictures

    def _predictions(self, info: Mapping[str, Any], views: Sequence[View]) -> np.ndarray:
        image = original_image(info, self._reverses_channels(), getattr(self.dataset, 'backend_args', None))
        panels = [self._truth(info, image)]
        for contestant, view in zip(self.contestants, views, strict=True):
            if 'pred_instances' in view.sample:
                found = view.sample.pred_instances
                count = int((found.scores > self.painter.score_thr).sum())
                text = f'{_boxes(count)} above {100 * self.painter.score_thr:g}%'
                panels.append((contestant.caption, text, self.painter.boxes(image, found, truth=False)))
            else:
                best = view.sample.pred_label.flatten().tolist()
                text = ', '.join(f'{self._class(i)}, score {float(view.sample.pred_score[i]):.3f}' for i in best)
                panels.append((contestant.caption, text, self.painter.fit(image)))
        return self.painter.compose(panels)

    def _truth(self, info: Mapping[str, Any], image: np.ndarray) -> tuple[str, str, np.ndarray]:
        """The first panel; the dataset's annotations are in the original image's pixels, whatever the pipeline does."""
        name, text, panel = Path(info.get('img_path') or '').name, 'the dataset has none', None
        if 'instances' in info:
            counted = [one for one in info['instances'] if not one.get('ignore_flag')]
            boxes = torch.tensor([one['bbox'] for one in counted], dtype=torch.float32).reshape(-1, 4)
            labels = torch.tensor([one['bbox_label'] for one in counted], dtype=torch.int64)
            text = _boxes(len(counted))
            panel = self.painter.boxes(image, InstanceData(bboxes=boxes, labels=labels), truth=True)
        elif 'gt_label' in info:
            text = ', '.join(map(self._class, np.ravel(info['gt_label']).tolist()))
        return 'ground truth', f'{text} ({name})', self.painter.fit(image) if panel is None else panel

    def _maps(self, pair: MapPair, image: np.ndarray, views: Sequence[View]) -> np.ndarray:
        shown = [(c, view, tap) for c, view in zip(self.contestants, views, strict=True) if (tap := pair.tap(c))]
        size = image.shape[:2]
        maps = [reduce_map(view.values[tap], view.padded, size, self.reduction) for _, view, tap in shown]
        text = f'{REDUCTIONS[self.reduction]}, {"one colour scale" if self.shared_scale else "own colour scales"}'
        panels = [('input', text, self.painter.fit(image))]
        for (contestant, view, tap), one, panel in zip(
            shown, maps, self.painter.heat(maps, image, self.shared_scale), strict=True
        ):
            shape = '×'.join(map(str, view.values[tap].shape[1:]))
            panels.append((contestant.caption, f'{tap}  {shape}  {one.min():.2g} to {one.max():.2g}', panel))
        return self.painter.compose(panels)

    def _name(self, pair: MapPair) -> str:
        """Of a picture of maps, fit for a file."""
        parts = [str(pair.student)] if pair.student == pair.teacher else [str(pair.student), str(pair.teacher)]
        if sum(contestant.teacher is not None for contestant in self.contestants) > 1:
            parts.append(pair.of)
        return '--'.join(re.sub(r'[^\w.]+', '-', part).strip('-') for part in parts)

    def _class(self, label: int) -> str:
        classes = self.dataset.metainfo.get('classes')
        return str(classes[label]) if classes else f'class {label}'

    def _reverses_channels(self) -> bool:
        preprocessor = self.contestants[-1].model.data_preprocessor
        return bool(getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False))


def _boxes(count: int) -> str:
    return '1 box' if count == 1 else f'{count} boxes'


def _dataset(config: Config) -> Any:
    """The validation dataset, or the test dataset where there is none.

    Raises:
        ValueError: If the config has neither.
    """
    loader = config.get('val_dataloader') or config.get('test_dataloader')
    if not loader:
        raise ValueError('the config has no val_dataloader and no test_dataloader, expected one: its images are drawn')
    return DATASETS.build(loader.dataset)


def visualizers(config: Config, out_dir: Path) -> tuple[Visualizer, Visualizer]:
    """The config's visualizer twice: without backends, to draw with; and with them, to hand pictures over."""
    cfg = dict(config.get('visualizer') or {'type': 'Visualizer'})
    backends = []
    for backend in cfg.pop('vis_backends', None) or [{'type': 'LocalVisBackend'}]:
        kind = getattr(backend['type'], '__name__', backend['type'])
        local = {'img_save_dir': ''} if kind == 'LocalVisBackend' else {}  # not two folders further down
        backends.append({'save_dir': str(out_dir), **local, **backend})
    name = uuid.uuid4().hex  # mmengine would give an earlier visualizer of the same name instead
    painter = VISUALIZERS.build({**cfg, 'name': f'{name}-painter'})
    if hasattr(painter, 'line_width') and 'line_width' not in cfg:
        painter.line_width = 1
    return painter, VISUALIZERS.build({**cfg, 'name': name, 'vis_backends': backends})


def original_image(info: Mapping[str, Any], reverse: bool, backend_args: Any = None) -> np.ndarray:
    """The image as the dataset has it, RGB (H, W, 3)."""
    if 'img' in info:  # in the model's order of channels, or in reverse if its preprocessor turns them round
        image = np.asarray(info['img'])
        image = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
        return image[..., ::-1] if reverse else image
    data = np.frombuffer(fileio.get(info['img_path'], backend_args), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f"'{info['img_path']}' is no image that OpenCV reads")
    return decoded[..., ::-1]


def input_image(inputs: Tensor, reverse: bool) -> np.ndarray:
    """What the pipeline gave (C, H, W) as RGB (H, W, 3) uint8."""
    image = inputs.float()
    if inputs.dtype != torch.uint8:  # normalised by the pipeline
        image = (image - image.min()) / (image.max() - image.min()).clamp_min(1e-6) * 255
    image = image.expand(3, -1, -1) if len(image) == 1 else image[[2, 1, 0]] if reverse else image
    return image.permute(1, 2, 0).round().byte().numpy()
