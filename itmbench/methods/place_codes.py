"""Sinusoidal codes of places in an order."""

import math

import torch
from torch import Tensor


def sinusoids(places: Tensor, size: int) -> Tensor:
    """Codes `[N, size]` of places, whole numbers `[N]` (Vaswani et al. 2017, section 3.5)."""
    frequency = torch.exp(torch.arange(0, size, 2, device=places.device) * (-math.log(10_000.0) / size))
    angles = places.unsqueeze(1) * frequency
    return torch.stack([torch.sin(angles), torch.cos(angles)], dim=2).flatten(1)[:, :size]
