"""VSE-infinity: the pooling of the tokens is learned."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Matcher, Modality
from itmbench.methods.losses import InfoNCE, TripletLoss


class VSEInfinity(Matcher):
    """VSE-infinity (Chen et al., CVPR 2021): project the tokens, pool them by a learned operator, compare by cosine.

    Args:
        dim: D, size of the common space.
        token_dropout: probability of dropping a token in training; every item keeps at least one.
        residual_mlp: add a small perceptron of each image token to its projection, as the authors do with ready-made
            region features; here without batch normalisation, which would make items depend on their batch.
        loss: loss on the in-batch scores; by default the hardest-negative triplet loss after a warm-up.
        **kwargs: arguments of ``Matcher``.

    Raises:
        InputError: ``token_dropout`` is not a probability below 1.
    """

    def __init__(
        self,
        dim: int = 256,
        token_dropout: float = 0.2,
        residual_mlp: bool = False,
        loss: InfoNCE | TripletLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= token_dropout < 1:
            raise InputError(f"VSEInfinity: token_dropout is {token_dropout}; give a probability from 0 to below 1")
        self.token_dropout = token_dropout
        self.project = self.per_modality(lambda width: nn.Linear(width, dim))
        self.pool = self.per_modality(lambda _: GeneralizedPooling())
        self.residual: nn.Module | None = None
        if residual_mlp:
            hidden = dim // 2
            self.residual = nn.Sequential(nn.Linear(self.image.width, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.loss = TripletLoss(warmup_steps=1000) if loss is None else loss

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        assert items.tokens is not None and items.mask is not None
        mask = drop_tokens(items.mask, self.token_dropout) if self.training else items.mask
        tokens = self.project[modality](items.tokens)
        if self.residual is not None and modality == "image":
            tokens = tokens + self.residual(items.tokens)
        return Embeddings(normalize(self.pool[modality](tokens, mask), dim=-1))


class GeneralizedPooling(nn.Module):
    """Generalised pooling operator (GPO): a weighted sum of sorted features, with a learned weight per rank.

    Each dimension of a set of n tokens is sorted on its own. The k-th largest value gets the weight
    theta_k = softmax_k(readout), where the readout is linear in the states of a bidirectional GRU that runs over codes
    of the ranks 1..n (Chen et al., "Learning the Best Pooling Strategy for Visual Semantic Embedding", CVPR 2021,
    section 4.2). Equal weights give mean pooling; all weight on the first rank gives max pooling. The weights depend
    on n alone, so padding does not change the result.

    Args:
        size: size of the rank codes and of the GRU state in each direction.
        temperature: temperature of the softmax.
    """

    def __init__(self, size: int = 32, temperature: float = 0.1) -> None:
        super().__init__()
        self.size, self.temperature = size, temperature
        self.gru = nn.GRU(size, size, batch_first=True, bidirectional=True)
        self.read = nn.Linear(size, 1, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pool tokens `[B, N, D]` with a mask, bool `[B, N]`, to float32 `[B, D]`; 0 for an item without tokens."""
        with torch.autocast(tokens.device.type, enabled=False):
            lengths = mask.sum(1)
            distinct, index = lengths.clamp(min=1).unique(return_inverse=True)
            weights = self.weights(distinct)[index].unsqueeze(2)
            ordered = tokens.float().masked_fill(~mask.unsqueeze(2), -torch.inf).sort(dim=1, descending=True).values
            ordered = ordered[:, : weights.shape[1]]
            rank = torch.arange(ordered.shape[1], device=mask.device)
            padding = rank >= lengths.unsqueeze(1)
            return (ordered.masked_fill(padding.unsqueeze(2), 0.0) * weights).sum(1)

    def weights(self, lengths: Tensor) -> Tensor:
        """Weights of the ranks, `[K, max n]`, for K sets of n >= 1 tokens (int64 `[K]`); 0 beyond rank n."""
        longest = int(lengths.max())
        codes = rank_codes(longest, self.size, lengths.device).expand(len(lengths), -1, -1)
        states, _ = self.gru(pack_padded_sequence(codes, lengths.cpu(), batch_first=True, enforce_sorted=False))
        states, _ = pad_packed_sequence(states, batch_first=True)
        logits = self.read((states[..., : self.size] + states[..., self.size :]) / 2).squeeze(2) / self.temperature
        beyond = torch.arange(longest, device=lengths.device) >= lengths.unsqueeze(1)
        return logits.masked_fill(beyond, -torch.inf).softmax(1)


def rank_codes(count: int, size: int, device: torch.device) -> Tensor:
    """Sinusoidal codes `[count, size]` of the ranks 1..count (Vaswani et al. 2017, section 3.5)."""
    frequency = torch.exp(torch.arange(0, size, 2, device=device) * (-math.log(10_000.0) / size))
    angles = torch.arange(1, count + 1, device=device).unsqueeze(1) * frequency
    return torch.stack([torch.sin(angles), torch.cos(angles)], dim=2).flatten(1)[:, :size]


def drop_tokens(mask: Tensor, dropout: float) -> Tensor:
    """Drop a random share of the tokens from a mask, bool `[B, N]`; every item keeps at least one of its tokens."""
    draws = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0)
    return mask & ((draws >= dropout) | (draws == draws.amax(1, keepdim=True)))
