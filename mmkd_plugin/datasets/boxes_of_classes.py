"""A detection data set of some classes; imported where mmdet is there."""

from collections.abc import Collection
from typing import Any

from mmdet.datasets import VOCDataset


class BoxesOfClasses(VOCDataset):
    """Mmdet's ``VOCDataset`` with the boxes of some classes, as class-incremental detection gives them.

    Objects of other classes stay in the pictures and have no boxes; pictures without any box of these classes are left
    out. Labels count all classes of the metainfo.

    Args:
        labels: The classes, as positions in the metainfo's ``classes``.
        **kwargs: See ``VOCDataset``.
    """

    def __init__(self, labels: Collection[int], **kwargs: Any) -> None:
        self.labels = set(labels)
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """As of the data set, less what is of other classes."""
        found = super().load_data_list()
        for entry in found:
            entry['instances'] = [box for box in entry['instances'] if box['bbox_label'] in self.labels]
        return [entry for entry in found if entry['instances']]
