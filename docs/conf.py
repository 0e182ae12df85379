"""How Sphinx builds these pages: `make docs`."""

import os
import re
from pathlib import Path
from typing import Any

from mmkd_plugin import __version__

os.environ.setdefault('OMP_NUM_THREADS', '1')  # of the notebook's kernel

project = 'mmkd_plugin'
author = copyright = 'the mmkd_plugin authors'
version = release = __version__

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
myst_heading_anchors = 3  # `page.md#a-heading`, as code hosts have them
nb_execution_mode = 'force'
nb_execution_timeout = 180
nb_execution_raise_on_error = True

html_theme = 'furo'
html_title = 'mmkd_plugin'
html_static_path = ['_static']
html_css_files = ['wide.css']
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it fetches pages, which browsers refuse in a plain folder

napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_default_options = {'members': True, 'show-inheritance': True, 'member-order': 'bysource'}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

# Markdown outside this folder, and the page that stands for it here. Other files that pages link to are copied.
OUTSIDE = {
    'README.md': 'index.md',
    'CONTRIBUTING.md': 'contributing.md',
    'CHANGELOG.md': 'changelog.md',
    'configs/README.md': 'reproducing.md',
}
DOCS = Path(__file__).parent


def point_inside(app: Any, docname: str, content: list[str]) -> None:
    """Links to Markdown outside this folder lead to the page that stands for it."""
    folder = (DOCS / docname).parent

    def inside(link: re.Match[str]) -> str:
        target = os.path.relpath(folder / link[1], DOCS.parent)
        return f']({os.path.relpath(DOCS / OUTSIDE[target], folder)}' if target in OUTSIDE else link[0]

    content[0] = re.sub(r'\]\((\.\.?/[^)#\s]+\.md)', inside, content[0])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect('source-read', point_inside)
