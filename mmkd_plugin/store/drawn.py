"""Which samples a batch holds, and as which draw of the pipeline."""

from typing import Any

import numpy as np

from ..datasets.indexed import INDEX, VIEW


def drawn(data_samples: Any, count: int, name: str) -> tuple[int, np.ndarray[Any, Any]]:
    """The view of a batch, and the index (N,) of each of its samples.

    Args:
        data_samples: Of the batch.
        count: N.
        name: Of who asks.

    Raises:
        RuntimeError: If samples do not tell, or one was drawn in place of another.
    """
    samples = data_samples if isinstance(data_samples, (list, tuple)) else []
    told = [(s.metainfo.get(VIEW), s.metainfo.get(INDEX)) for s in samples if hasattr(s, 'metainfo')]
    views, indices = {view for view, _ in told}, [index for _, index in told]
    if len(told) != count or None in views or None in indices:
        raise RuntimeError(
            f'{name}: a store needs samples that tell their index and view: add '
            "dict(type='EpochSeedHook', by_sample=True) and dict(type='DistillHook') to custom_hooks, and keep the "
            'metainfo of data samples'
        )
    if -1 in indices:
        raise RuntimeError(
            f'{name}: the pipeline refused an image (a transform returned None), and mmengine drew another in its '
            'place, which a store cannot know: take what is refused out of the data set, or out of the pipeline what '
            'refuses it'
        )
    if len(views) > 1:
        raise RuntimeError(f'{name}: a batch has images of the views {sorted(views)}, expected those of one')
    return views.pop(), np.array(indices, np.int64)
