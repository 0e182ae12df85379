"""Training with sharded parameters (FSDP) through mmengine's FlexibleRunner."""

from typing import Any

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.registry import STRATEGIES
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    StateDictType,
)


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """mmengine's ``FSDPStrategy``, which can also be resumed, and tried on CPUs.

    Checkpoints are whole, as those of DDP. mmengine's own gives the arguments of torch's
    ``optim_state_dict_to_load`` in the order that they had before torch 2.1, and so fails when it resumes.

        runner_type = 'FlexibleRunner'
        strategy = dict(type='ShardedStrategy', model_wrapper=dict(auto_wrap_policy=...))

    Args:
        model_wrapper: Options of ``MMFullyShardedDataParallel``.
        state_dict_cfg: As of ``FSDPStrategy``, but 'full' when not given.
        **options: The others of ``FSDPStrategy``.
    """

    def __init__(
        self, *, model_wrapper: dict[str, Any] | None = None, state_dict_cfg: Any = 'full', **options: Any
    ) -> None:
        wrapper = {'type': 'MMFullyShardedDataParallel', **(model_wrapper or {})}
        if not torch.cuda.is_available():
            wrapper.setdefault('device_id', torch.device('cpu'))
        super().__init__(model_wrapper=wrapper, state_dict_cfg=state_dict_cfg, **options)
        if not torch.cuda.is_available() and self.state_dict_type == StateDictType.FULL_STATE_DICT:
            # offloading to where the parameters are crashes torch (2.12)
            self.state_dict_config = FullStateDictConfig(rank0_only=True)
            self.optim_state_dict_config = FullOptimStateDictConfig(rank0_only=True)

    def load_optim_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what a checkpoint has of the optimizer.

        Args:
            state_dict: Of all processes, as :meth:`optim_state_dict` gave it.
        """
        optimizer = self.optim_wrapper.optimizer
        pieces = FullyShardedDataParallel.optim_state_dict_to_load(self.model, optimizer, state_dict)
        self.optim_wrapper.load_state_dict(pieces)
