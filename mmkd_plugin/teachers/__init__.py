"""Where knowledge comes from: resolving, loading, freezing and running a teacher."""

from .frozen import Teacher
from .preprocessing import SizesBeforePadding
from .spec import DISTILLED_KEYS, EXAMPLE, TeacherSpec, build_teacher, plain_student, untrained

__all__ = [
    'DISTILLED_KEYS',
    'EXAMPLE',
    'SizesBeforePadding',
    'Teacher',
    'TeacherSpec',
    'build_teacher',
    'plain_student',
    'untrained',
]
