"""What a checkpoint says of the distillation that it was written by, and whether this run goes on with it.

mmengine loads weights by name and optimizer states by position: learnable parts of a loss that was added, removed or
exchanged would get the momentum of others, or stop the run with an error that names none of them.
"""

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import MessageHub, print_log

from ..losses import DistillLoss

KEY = 'distill'
#: Records of this process, which did not come from a checkpoint.
_WRITTEN: list[dict[str, Any]] = []


def record_of(distillation: Any) -> dict[str, Any]:
    """What is compared, as plain data: names and shapes of learnable parts in order, fingerprints of teachers."""
    return {
        'learnable': distillation.learnable,
        'teachers': {name: teacher.fingerprint for name, teacher in distillation.teachers.items()},
    }


def compare_with_resumed(distillation: Any) -> None:
    """Compare with what the message hub brought from a resumed checkpoint, and leave a record there for the next.

    Raises:
        ValueError: If the learnable parts are others.
    """
    hub = MessageHub.get_current_instance()
    now = record_of(distillation)
    before = hub.runtime_info.get(KEY)
    if before is not None and not any(before is record for record in _WRITTEN):
        _compare_learnable(before['learnable'], now['learnable'])
        for name, fingerprint in now['teachers'].items():
            if name in before['teachers'] and before['teachers'][name] != fingerprint:
                text = (
                    f'the weights of {name} are not those that this run was begun with; it goes on with another teacher'
                )
                print_log(text, 'current', logging.WARNING)
    hub.update_info(KEY, now)
    _WRITTEN.append(now)


def compare_with_checkpoint(distillation: Any, checkpoint: Mapping[str, Any]) -> None:
    """The same before anything is loaded, for hooks.

    Raises:
        ValueError: If the learnable parts are others, or a loss cannot go on with what is there of it.
    """
    hub = checkpoint.get('message_hub') or {}
    before = (hub.get('runtime_info') or {}).get(KEY)
    learnable = (
        before['learnable']
        if before
        # of before there was a record
        else [[k, list(v.shape)] for k, v in checkpoint.get('state_dict', {}).items() if _is_learnable(k, distillation)]
    )
    _compare_learnable(learnable, record_of(distillation)['learnable'])
    weights = checkpoint.get('state_dict', {})
    for name, module in distillation.named_modules():
        if isinstance(module, DistillLoss):
            prefix = f'distill.{name}.'.replace('._fsdp_wrapped_module', '')  # checkpoints have plain names
            own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
            try:
                module.check_resumed(own)
            except ValueError as error:
                raise ValueError(f'{prefix}{type(module).__name__}: {error}') from error


def _is_learnable(key: str, distillation: Any) -> bool:
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    own = {f'distill.{name}' for name, _ in distillation.named_buffers()}
    return key.startswith('distill.') and key not in own and not key.endswith(buffers)


def _compare_learnable(before: list[Any], now: list[Any]) -> None:
    before, now = ([(name, tuple(shape)) for name, shape in parts] for parts in (before, now))
    if before == now:
        return
    gone, new = (_names([part for part in one if part not in other]) for one, other in ((before, now), (now, before)))
    raise ValueError(
        'the checkpoint to resume from was written with other learnable parts of losses: '
        + ('the same in another order' if sorted(before) == sorted(now) else f'only there {gone}, only here {new}')
        + '. Their optimizer states would go to the wrong ones. Resume with the losses of then, in the same order; or '
        'start anew from its weights: load_from=..., without resume'
    )


def _names(parts: list[Any]) -> str:
    return ', '.join(f'{name} {shape}' for name, shape in parts[:6]) + (' ...' if len(parts) > 6 else '') or 'none'
