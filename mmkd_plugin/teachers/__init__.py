"""Where knowledge comes from: each kind of teacher, and what a config says of one."""

from .average import Average
from .exits import Exits
from .frozen import Frozen
from .labels import Labels
from .network_spec import DISTILLED_KEYS, EXAMPLE, TeacherSpec, build_teacher, plain_student, untrained
from .own import Own
from .peer import Peer
from .preprocessing import SizesBeforePadding
from .route import Route
from .source import SOURCES, Source, build_source, check_apart
from .stages import Stages
from .stored import Stored

__all__ = [
    'DISTILLED_KEYS',
    'EXAMPLE',
    'SOURCES',
    'Average',
    'Exits',
    'Frozen',
    'Labels',
    'Own',
    'Peer',
    'Route',
    'SizesBeforePadding',
    'Source',
    'Stages',
    'Stored',
    'TeacherSpec',
    'build_source',
    'build_teacher',
    'check_apart',
    'plain_student',
    'untrained',
]
