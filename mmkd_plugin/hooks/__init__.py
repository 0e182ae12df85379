"""What happens between training steps."""

from .distill import DistillHook
from .epoch_seed import EpochSeedHook
from .path_length import PathLengthHook
from .phase import PhaseHook
from .teacher_eval import TeacherEvalHook

__all__ = ['DistillHook', 'EpochSeedHook', 'PathLengthHook', 'PhaseHook', 'TeacherEvalHook']
