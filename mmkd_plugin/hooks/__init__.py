"""What happens between training steps."""

from .distill import DistillHook
from .epoch_seed import EpochSeedHook
from .in_turn import InTurnHook
from .path_length import PathLengthHook
from .peer_eval import PeerEvalHook
from .phase import PhaseHook
from .teacher_eval import TeacherEvalHook

__all__ = [
    'DistillHook',
    'EpochSeedHook',
    'InTurnHook',
    'PathLengthHook',
    'PeerEvalHook',
    'PhaseHook',
    'TeacherEvalHook',
]
