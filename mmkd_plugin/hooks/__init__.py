"""What happens between training steps."""

from .distill import DistillHook
from .epoch_seed import EpochSeedHook
from .in_turn import InTurnHook
from .peer_eval import PeerEvalHook
from .phase import PhaseHook
from .teacher_eval import TeacherEvalHook

__all__ = ['DistillHook', 'EpochSeedHook', 'InTurnHook', 'PeerEvalHook', 'PhaseHook', 'TeacherEvalHook']
