"""Buffers that hold training items: empty until they are filled, and of any size."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Memory(nn.Module):
    """Buffers, named by a subclass, whose sizes follow from what fills them or from a checkpoint."""

    kept: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        super().__init__()
        for name in self.kept:
            self.register_buffer(name, torch.zeros(0, 0))

    def keep(self, **tensors: Tensor) -> None:
        """Replace the contents of buffers, on the device that they are on."""
        for name, tensor in tensors.items():
            setattr(self, name, tensor.to(getattr(self, name).device))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in self.kept:
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, torch.empty_like(state_dict[f"{prefix}{name}"], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)
