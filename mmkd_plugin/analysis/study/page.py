"""One HTML page of a study, with its pictures in it: it needs no server and no network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ...files.atomic import write_text
from .table import HYPOTHESES, Report, shown_rows

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom-color: #888; }
figure { margin: 1.2rem 0; overflow-x: auto; }
img { display: block; width: 100%; max-width: 56rem; min-width: 30rem; height: auto; }
figcaption { color: #555; font-size: .9rem; position: sticky; left: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
.verdict { font-weight: 600; } .holds { color: #1f5a94; } .not { color: #9c2f43; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
"""
_ABOUT = (
    'For each image the strongest noise was found that leaves a layer nearly as it is. Entropy is large where a cell '
    'may be noisy, so that the layer discards it; a visual concept is a cell that it discards much less of than of the '
    'background.'
)


def write_page(
    path: Path, reports: Sequence[Report], pictures: Sequence[Mapping[str, str]], setting: Mapping[str, str]
) -> None:
    """Write the page.

    Args:
        path: Where to; pictures lie beside it.
        reports: One for each tap.
        pictures: For each of them names of files, with what they show.
        setting: What was done, in words.
    """
    parts = ['<h1>What did the student learn?</h1>', f'<p>{escape(_ABOUT)}</p>']
    for report, files in zip(reports, pictures, strict=True):
        parts.append(f'<h2>{escape(report.tap)}</h2>')
        parts.append(_verdicts(report) + _table(report) + f'<p>{escape(report.remark())}</p>')
        parts += [_figure(path.parent / name, text) for name, text in files.items()]
    told = ''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in setting.items())
    parts.append(f'<h2>Setting</h2><dl>{told}</dl>')
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>What did the student learn?</title><style>{_STYLE}</style></head>\n<body>\n'
        + '\n'.join(parts)
        + '\n</body></html>\n',
    )


def _verdicts(report: Report) -> str:
    items = []
    for number, text in enumerate(HYPOTHESES):
        verdict = report.verdict(number)
        kind = 'holds' if verdict.startswith('holds') else 'not' if verdict == 'does not hold' else ''
        items.append(f'<li>{escape(text)}: <span class="verdict {kind}">{escape(verdict)}</span></li>')
    return f'<ol>{"".join(items)}</ol>'


def _table(report: Report) -> str:
    head, *rows = shown_rows(report)
    lines = [''.join(f'<th>{escape(cell)}</th>' for cell in head)]
    lines += [''.join(f'<td>{escape(cell)}</td>' for cell in row) for row in rows]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _figure(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{data}"><figcaption>{escape(text)}</figcaption>'
        '</figure>'
    )
