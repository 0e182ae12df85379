"""What happens between training steps."""

from .epoch_seed import EpochSeedHook
from .teacher_eval import TeacherEvalHook

__all__ = ['EpochSeedHook', 'TeacherEvalHook']
