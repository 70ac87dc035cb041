"""The generalised pooling operator (GPO) of VSE-infinity."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class GeneralizedPooling(nn.Module):
    """Weighted sums of sorted features, with weights learned for every place of the order.

    Every dimension of a set of n tokens is sorted on its own; the k-th largest value has the weight theta_k of
    softmax over k of a linear readout of a bidirectional GRU over the codes of the places 1..n (Chen et al., "Learning
    the Best Pooling Strategy for Visual Semantic Embedding", CVPR 2021, section 4.2). Equal weights are mean pooling,
    all weight on the first place is max pooling. The weights depend on n alone, and the GRU runs over exactly n
    places, so that a set is pooled in the same way whatever it is padded to.

    Args:
        size: of the place codes and of the GRU's state in each direction.
        temperature: of the softmax.
    """

    def __init__(self, size: int = 32, temperature: float = 0.1) -> None:
        super().__init__()
        self.size, self.temperature = size, temperature
        self.gru = nn.GRU(size, size, batch_first=True, bidirectional=True)
        self.read = nn.Linear(size, 1, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, N, D]` with mask, bool `[B, N]` -> float32 `[B, D]`; zeros where no token is real."""
        with torch.autocast(tokens.device.type, enabled=False):
            lengths = mask.sum(1)
            distinct, which = lengths.clamp(min=1).unique(return_inverse=True)
            weights = self.weights(distinct)[which].unsqueeze(2)
            ordered = tokens.float().masked_fill(~mask.unsqueeze(2), -torch.inf).sort(dim=1, descending=True).values
            ordered = ordered[:, : weights.shape[1]]
            place = torch.arange(ordered.shape[1], device=mask.device)
            padding = place >= lengths.unsqueeze(1)
            return (ordered.masked_fill(padding.unsqueeze(2), 0.0) * weights).sum(1)

    def weights(self, lengths: Tensor) -> Tensor:
        """Weights of the places 1..n for sets of n tokens: int64 `[K]`, at least 1 -> `[K, max n]`, 0 beyond n."""
        longest = int(lengths.max())
        codes = place_codes(longest, self.size, lengths.device).expand(len(lengths), -1, -1)
        states, _ = self.gru(pack_padded_sequence(codes, lengths.cpu(), batch_first=True, enforce_sorted=False))
        states, _ = pad_packed_sequence(states, batch_first=True)
        logits = self.read((states[..., : self.size] + states[..., self.size :]) / 2).squeeze(2) / self.temperature
        beyond = torch.arange(longest, device=lengths.device) >= lengths.unsqueeze(1)
        return logits.masked_fill(beyond, -torch.inf).softmax(1)


def place_codes(count: int, size: int, device: torch.device) -> Tensor:
    """Sinusoidal codes of the places 1..count, `[count, size]` (Vaswani et al. 2017, section 3.5)."""
    frequency = torch.exp(torch.arange(0, size, 2, device=device) * (-math.log(10_000.0) / size))
    angles = torch.arange(1, count + 1, device=device).unsqueeze(1) * frequency
    return torch.stack([torch.sin(angles), torch.cos(angles)], dim=2).flatten(1)[:, :size]
