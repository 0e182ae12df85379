"""What happens between training steps."""

from .epoch_seed import EpochSeedHook
from .kcd import KCDHook
from .teacher_eval import TeacherEvalHook

__all__ = ['EpochSeedHook', 'KCDHook', 'TeacherEvalHook']
