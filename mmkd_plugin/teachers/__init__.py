"""Where knowledge comes from: each kind of teacher, and what a config says of one."""

from .frozen import Frozen
from .labels import Labels
from .network_spec import DISTILLED_KEYS, EXAMPLE, TeacherSpec, build_teacher, plain_student, untrained
from .own import Own
from .peer import Peer
from .preprocessing import SizesBeforePadding
from .source import SOURCES, Source, build_source, check_apart

__all__ = [
    'DISTILLED_KEYS',
    'EXAMPLE',
    'SOURCES',
    'Frozen',
    'Labels',
    'Own',
    'Peer',
    'SizesBeforePadding',
    'Source',
    'TeacherSpec',
    'build_source',
    'build_teacher',
    'check_apart',
    'plain_student',
    'untrained',
]
