"""What happens to gradients before an update, and who makes it."""

from .bounded import AmpBoundedOptimWrapper, BoundedOptimWrapper, amp_type, without_bound
from .by_learner import LearnerOptimWrapperConstructor, LearnerOptimWrappers, of_learner

__all__ = [
    'AmpBoundedOptimWrapper',
    'BoundedOptimWrapper',
    'LearnerOptimWrapperConstructor',
    'LearnerOptimWrappers',
    'amp_type',
    'of_learner',
    'without_bound',
]
