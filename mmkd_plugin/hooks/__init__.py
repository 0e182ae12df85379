"""What happens between training steps."""

from .distill import DistillHook
from .epoch_seed import EpochSeedHook
from .teacher_eval import TeacherEvalHook

__all__ = ['DistillHook', 'EpochSeedHook', 'TeacherEvalHook']
