"""Panels of one size, with boxes or feature maps, beside each other below captions."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData
from mmengine.visualization import Visualizer
from torch import Tensor
from torch.nn.functional import interpolate

_GAP = 8  # pixels between panels
_DPI = 0.35  # for each pixel of a panel's shorter side
_LINES = ((0.3, 10.0, 'black'), (0.74, 7.5, 'dimgray'))  # of a caption: place in its band, points, colour


class Painter:
    """Draws panels of one size, and puts them beside each other below captions.

    Args:
        visualizer: One without backends. Where models detect, one that draws their data samples.
        size: Shorter side of a panel, in pixels.
        score_thr: Boxes with lower scores are left out.
    """

    def __init__(self, visualizer: Visualizer, size: int, score_thr: float) -> None:
        self.visualizer, self.size, self.score_thr = visualizer, size, score_thr
        # texts and lines are sized in points: let them grow with the panels
        self.visualizer.dpi = size * _DPI
        self.visualizer.fig_save.set_dpi(self.visualizer.dpi)

    def fit(self, image: np.ndarray) -> np.ndarray:
        """A panel of an image (H, W, 3)."""
        scale = self.size / min(image.shape[:2])
        width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
        # pixels of very small images are shown as such
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC if scale < 6 else cv2.INTER_NEAREST
        return np.ascontiguousarray(cv2.resize(image, (width, height), interpolation=way))

    def boxes(self, image: np.ndarray, instances: InstanceData, truth: bool) -> np.ndarray:
        """A panel with boxes, and masks where there are some, given in the image's pixels."""
        panel = self.fit(image)
        if not truth:  # the surest on top
            instances = instances[instances.scores.argsort()]
        shown = InstanceData(labels=instances.labels, bboxes=instances.bboxes * (self.size / min(image.shape[:2])))
        if not truth:
            shown.scores = instances.scores
        if isinstance(masks := instances.get('masks'), Tensor) and len(masks):
            shown.masks = interpolate(masks[None].float(), panel.shape[:2])[0] > 0.5
        sample = BaseDataElement(**{'gt_instances' if truth else 'pred_instances': shown})
        self.visualizer.add_datasample(
            'panel', panel, sample, draw_gt=truth, draw_pred=not truth, pred_score_thr=self.score_thr
        )
        return self.visualizer.get_image()

    def heat(self, maps: Sequence[Tensor], image: np.ndarray, shared: bool) -> list[np.ndarray]:
        """Panels of maps (H, W) over the image, each coloured by its own range, or all by their common one."""
        panel = self.fit(image)
        fitted = [interpolate(one[None, None], panel.shape[:2], mode='bilinear')[0] for one in maps]
        if not shared:
            return [Visualizer.draw_featmap(one, panel) for one in fitted]
        # mmengine scales by the range of what it is given: so give it all of them as one
        together = Visualizer.draw_featmap(torch.cat(fitted, -1), np.concatenate([panel] * len(fitted), 1))
        return np.split(together, len(fitted), 1)

    def compose(self, panels: Sequence[tuple[str, str, np.ndarray]]) -> np.ndarray:
        """Panels beside each other, each below a title and a line of smaller text."""
        height, width = panels[0][2].shape[:2]
        gap = np.full((height, _GAP, 3), 255, np.uint8)
        row = np.concatenate([part for *_, panel in panels for part in (panel, gap)][:-1], 1)
        band = self.size // 8
        self.visualizer.set_image(np.full((band, row.shape[1], 3), 255, np.uint8))
        for number, texts in enumerate(panels):
            for text, (down, points, colour) in zip(texts[:2], _LINES, strict=True):
                at = np.array([number * (width + _GAP) + 2, down * band])
                fits = int(width / (points / 72 * self.visualizer.dpi * 0.55))  # letters are half as wide as high
                text = text if len(text) <= fits else '…' + text[1 - fits :]
                self.visualizer.draw_texts(text, at, points, colour, vertical_alignments='center')
        return np.concatenate([self.visualizer.get_image(), row])
