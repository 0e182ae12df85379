"""What happens to gradients before an update."""

from .bounded import AmpBoundedOptimWrapper, BoundedOptimWrapper, amp_type, without_bound

__all__ = ['AmpBoundedOptimWrapper', 'BoundedOptimWrapper', 'amp_type', 'without_bound']
