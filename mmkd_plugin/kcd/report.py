"""What a round of condensation did: a line in the log, scalars, and a table."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from ..files.atomic import remove_unfinished, write_text

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Report:
    """Writes what each round did.

    Args:
        runner: Whose logger, visualizer and folder are used.
        dataset: Whose samples are named.
        table: Whether to write a row for each of them.
    """

    def __init__(self, runner: Any, dataset: Any, table: bool) -> None:
        self.runner, self.dataset, self.table = runner, dataset, table
        self.folder = Path(runner.work_dir) / 'kcd'

    def forget(self, rounds: int) -> None:
        """Remove tables of later rounds, which another run left, and what a killed writer did."""
        remove_unfinished(self.folder)
        for path in self.folder.glob('round_*.csv'):
            if int(path.stem.split('_')[1]) > rounds:
                path.unlink()

    def write(self, hook: Any, result: Any, epoch: int) -> None:
        """Report one round.

        Args:
            hook: The ``KCDHook``.
            result: Its ``Condensation``.
            epoch: Epochs trained so far.
        """
        seen = hook.table.count > 0
        quantiles = np.quantile(hook.table.mean[seen], QUANTILES) if seen.any() else np.full(len(QUANTILES), np.nan)
        path = self.folder / f'round_{hook.round}.csv'
        mixed = len(hook.recipes)
        kept = len(result.high) + len(result.low)
        self.runner.logger.info(
            f'KCD round {hook.round} of {len(hook.rounds)}, after epoch {epoch}: {kept} of {hook.size} kept, '
            f'{mixed} of them mixed, {len(result.dropped)} dropped; value at quantiles '
            + ', '.join(f'{q:g}: {v:.4f}' for q, v in zip(QUANTILES, quantiles, strict=True))
            + f'; {hook.returned} of {hook.out} dropped before returned; '
            + (f'{hook.looked} looked at without training so far; ' if hook.looked else '')
            + f'{hook.pace.saved} iterations saved so far'
            + (f'; {path}' if self.table else '')
        )
        scalars = {'kept': kept, 'mixed': mixed, 'dropped': len(result.dropped), 'iterations_saved': hook.pace.saved}
        scalars |= {'returned': hook.returned, 'dropped_before': hook.out, 'looked_at': hook.looked}
        scalars.update({f'value_{q:g}': float(v) for q, v in zip(QUANTILES, quantiles, strict=True)})
        self.runner.visualizer.add_scalars({f'kcd/{k}': v for k, v in scalars.items()}, step=self.runner.iter)
        if self.table:
            self._write_table(hook, result, path)

    def _write_table(self, hook: Any, result: Any, path: Path) -> None:
        names = np.full(hook.size, 'dropped', dtype='<U7')
        names[result.high] = 'high'
        names[result.low] = 'low' if hook.mixing else 'high'
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(['sample', 'value', 'count', 'set', 'path'])
        for index, (value, count, name) in enumerate(
            zip(hook.table.mean.tolist(), hook.table.count.tolist(), names.tolist(), strict=True)
        ):
            image = self.dataset.get_data_info(index).get('img_path', '')
            writer.writerow([index, f'{value:.6g}' if count else '', count, name, image])
        write_text(path, text.getvalue())
