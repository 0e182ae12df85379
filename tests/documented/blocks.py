"""Finding the code in pages: fences, commands in paragraphs, and the marks above a fence.

Above a fence, as HTML comments that no reader sees:

    <!-- not run: why -->    it is not tried
    <!-- file: NAME -->      a config under this name, which later configs of the page may inherit
    <!-- onto: CONFIG -->    a fragment of a config is tried on top of this one
"""

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in [*ROOT.glob('*.md'), ROOT / 'configs' / 'README.md', *(ROOT / 'docs').rglob('*.md')]
    if path.name != 'CHANGELOG.md'  # what was once so
)
MARKS = ('not run', 'file', 'onto')
#: Fences that hold no code; names in braces are directives of Sphinx.
NO_CODE = ('text', 'json', 'csv')
#: What a config assigns; a block of assignments to other names is a script.
CONFIG_KEYS = {
    '_base_', 'model', 'losses', 'task_loss', 'teacher', 'teachers', 'start', 'custom_hooks', 'default_hooks',
    'optim_wrapper', 'param_scheduler', 'train_dataloader', 'val_evaluator', 'train_cfg', 'custom_imports',
    'runner_type', 'strategy',
}  # fmt: skip

_FENCE = re.compile(
    r'^(?P<indent> *)(?P<ticks>`{3,})(?P<kind>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=ticks) *$', re.M | re.S
)
_MARKS = re.compile(r'(?:^ *<!-- [^\n]*? -->\n)+\Z', re.M)
_INDENTED = re.compile(r'(?:^ {4}(?:python|tools/\w+\.sh |make ).*\n(?: {4}.*\n|\n(?= {4}))*)', re.M)
_INLINE = re.compile(r'(?<!`)`(python3? (?:tools/|-m )[^`]+|make [^`]+|tools/\w+\.sh [^`]+)`(?!`)')


@dataclass(frozen=True)
class Block:
    """A piece of code.

    Attributes:
        page: Below the checkout.
        line: Where it begins.
        kind: ``python``, ``bash`` ...; '' where the fence does not say.
        code: Without the indentation that all lines have.
        marks: See the module.
    """

    page: str
    line: int
    kind: str
    code: str
    marks: dict[str, str]

    def __str__(self) -> str:
        return f'{self.page}:{self.line}'

    @property
    def is_config(self) -> bool:
        """Whether it is (a part of) a config and not a script."""
        if self.kind != 'python':
            return False
        if '{{_base_' in self.code:
            return True
        names = set()
        try:
            statements = ast.parse(self.code).body
        except SyntaxError:  # of a script, then, which says so when it runs
            return False
        for statement in statements:
            if isinstance(statement, ast.Assign):
                names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
            elif not isinstance(statement, ast.With | ast.ImportFrom):
                return False
        return bool(names & CONFIG_KEYS) or 'read_base()' in self.code


def blocks_of(path: Path) -> list[Block]:
    """The fences of a page, and commands in paragraphs and indented text, in order."""
    text, page = path.read_text(), str(path.relative_to(ROOT))
    found = []
    for fence in _FENCE.finditer(text):
        above = _MARKS.search(text, 0, fence.start())
        marks = dict(re.findall(r'<!-- ([\w ]+): (.*?) -->', above[0])) if above else {}
        marks = {mark: value for mark, value in marks.items() if mark in MARKS}
        code = textwrap.dedent(fence['code'])
        found.append(Block(page, text.count('\n', 0, fence.start()) + 1, fence['kind'].strip(), code, marks))
    rest = _FENCE.sub(lambda fence: '\n' * fence[0].count('\n'), text)
    for match in _INDENTED.finditer(rest):
        found.append(Block(page, rest.count('\n', 0, match.start()) + 1, 'bash', textwrap.dedent(match[0]), {}))
    rest = _INDENTED.sub(lambda match: '\n' * match[0].count('\n'), rest)
    for match in _INLINE.finditer(rest):
        found.append(Block(page, rest.count('\n', 0, match.start()) + 1, 'inline', ' '.join(match[1].split()), {}))
    return sorted(found, key=lambda block: block.line)


BLOCKS = [block for path in PAGES for block in blocks_of(path)]
