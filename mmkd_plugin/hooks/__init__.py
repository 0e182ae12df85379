"""What happens between training steps."""

from .diagnose import DiagnoseHook
from .distill import DistillHook
from .epoch_seed import EpochSeedHook
from .in_turn import InTurnHook
from .path_length import PathLengthHook
from .peer_eval import PeerEvalHook
from .phase import PhaseHook
from .teacher_eval import TeacherEvalHook

__all__ = [
    'DiagnoseHook',
    'DistillHook',
    'EpochSeedHook',
    'InTurnHook',
    'PathLengthHook',
    'PeerEvalHook',
    'PhaseHook',
    'TeacherEvalHook',
]
