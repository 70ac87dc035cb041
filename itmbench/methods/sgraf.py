"""SGRAF: a similarity vector per word and one for the whole pair, filtered or reasoned over into one score."""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings, masked_mean
from itmbench.errors import InputError
from itmbench.methods.base import Modality
from itmbench.methods.cross_attention import EPSILON, project_tokens, relations, scan_attention, zero_padded_tokens
from itmbench.methods.explained import Attended
from itmbench.methods.losses import InfoNCE, TripletLoss
from itmbench.methods.token_matcher import TokenMatcher, without_padding

_SHARPNESS = 9.0
# Shorter vectors are not scaled to unit length, so that gradients stay bounded as they vanish.
_MIN_NORM = 1e-4


class SGRAF(TokenMatcher):
    """Similarity graph reasoning or similarity attention filtration (Diao et al., AAAI 2021).

    Words attend to regions as in SCAN. The similarity vector of a word t and its context c is W (t - c)^2 at unit
    length; one more compares image and text as wholes. The score is the sigmoid of a linear readout, as the triplet
    loss of the authors needs it, or under InfoNCE, which has a scale of its own, the readout; both rank alike.

    Args:
        dim: D, size of the tokens and of the common space.
        module: ``saf`` averages the similarity vectors by gates; ``sgr`` passes messages between them.
        similarity_dim: S, size of the similarity vectors; under ``sgr`` the cost of a pair grows with its square.
        steps: reasoning steps of ``sgr``, at least 1.
        loss: loss on the in-batch scores; by default the hardest-negative triplet loss
            after a warm-up.
        **kwargs: arguments of ``Matcher``.

    Raises:
        InputError: ``steps`` is below 1.
    """

    def __init__(
        self,
        dim: int = 256,
        module: Literal["saf", "sgr"] = "saf",
        similarity_dim: int = 256,
        steps: int = 3,
        loss: InfoNCE | TripletLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if steps < 1:
            raise InputError(f"SGRAF: steps is {steps}; give at least 1")
        self.project = self.per_modality(lambda width: nn.Linear(width, dim))
        self.whole = self.per_modality(lambda _: GlobalAttention(dim))
        self.compare_words = nn.Linear(dim, similarity_dim)
        self.compare_wholes = nn.Linear(dim, similarity_dim)
        self.head: SimilarityFiltration | SimilarityReasoning
        if module == "saf":
            self.head = SimilarityFiltration(similarity_dim)
        else:
            self.head = SimilarityReasoning(similarity_dim, steps)
        self.read = nn.Linear(similarity_dim, 1)
        self.channels = dim + similarity_dim * (1 if module == "saf" else 1 + steps)
        self.loss = TripletLoss(warmup_steps=1000) if loss is None else loss
        for part in (self.compare_words, self.compare_wholes, self.head, self.read):
            part.apply(_initialise)

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        items = project_tokens(self.project[modality], items)
        return replace(items, pooled=self.whole[modality](items.tokens, items.mask))

    def within(self, items: Embeddings) -> Tensor:
        """Return the tokens in full precision `[B, N, D]`."""
        return zero_padded_tokens(items)

    def score_block(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        assert text.mask is not None
        with torch.autocast(image.pooled.device.type, enabled=False):
            nodes = self._nodes(image, text, _attention(within_image, within_text), within_image, within_text)
            mask = torch.cat([text.mask.new_ones(len(text), 1), text.mask], 1)
            scores = self.read(self.head(nodes, mask)).squeeze(2)
            return scores if isinstance(self.loss, InfoNCE) else scores.sigmoid()

    def _nodes(self, image: Embeddings, text: Embeddings, attention: Tensor, regions: Tensor, words: Tensor) -> Tensor:
        """Similarity vectors of every pair, that of the wholes first, `[I, T, 1 + L, S]`."""
        wholes = _similarity(self.compare_wholes, image.pooled.float().unsqueeze(1), text.pooled.float())
        compared = _similarity(self.compare_words, words, _contexts(attention, regions, words))
        return torch.cat([wholes.unsqueeze(2), compared], 2)

    def attended(self, image: Embeddings, text: Embeddings) -> Attended:
        """What the wholes and each word add to the readout of one image and one text, and the words' attention.

        Raises:
            InputError: the module is ``sgr``, whose messages between words leave no share to each.
        """
        if not isinstance(self.head, SimilarityFiltration):
            raise InputError(
                "explain: with module sgr, words exchange messages, so none has a share of its own; use saf"
            )
        assert image.mask is not None and text.mask is not None
        text = without_padding(text, int(text.mask.sum()))
        regions, words = zero_padded_tokens(image), zero_padded_tokens(text)
        attention = _attention(regions, words)
        nodes = self._nodes(image, text, attention, regions, words)
        gates = self.head.gates(nodes, nodes.new_ones(1, nodes.shape[2], dtype=torch.bool))
        length = (gates * nodes).sum(2).norm().clamp(min=_MIN_NORM)
        gates, readout = gates[0, 0, :, 0], (nodes[0, 0] @ self.read.weight.T).squeeze(1)
        shares, scale = gates[1:] / gates[1:].sum(), float(gates[1:].sum() / length)
        wholes = float(gates[0] * readout[0] / length + self.read.bias)
        paths = {"wholes": wholes, "words": scale * float((shares * readout[1:]).sum())}
        seen = attention[0, image.mask[0], 0].T
        seen = seen / seen.sum(1, keepdim=True)
        return Attended(paths, scale, shares, readout[1:], torch.zeros_like(shares), seen)


class GlobalAttention(nn.Module):
    """Pool an item's tokens, weighted by how well they agree with their mean.

    The weights are the softmax over i of w (tanh(N(A x_i)) * tanh(N(B mean x))), with N a LayerNorm.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token_branch = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Tanh())
        self.mean_branch = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Tanh())
        self.read = nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pool tokens `[B, N, D]` under a mask, bool `[B, N]`, to unit vectors `[B, D]`; 0 for items without tokens."""
        tokens = tokens.to(self.read.weight.dtype)
        branches = self.token_branch(tokens), self.mean_branch(masked_mean(tokens, mask)).unsqueeze(1)
        logits = self.read(branches[0] * branches[1]).squeeze(2)
        logits = logits.float().masked_fill(~mask, -torch.inf).masked_fill(~mask.any(1, keepdim=True), 0.0)
        weights = (logits.softmax(1) * mask).unsqueeze(2)
        return normalize((weights * tokens).sum(1), dim=-1, eps=_MIN_NORM)


class SimilarityFiltration(nn.Module):
    """SAF: the gated average of a pair's similarity vectors."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, 1)

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Average nodes `[A, F, L, S]` under a mask, bool `[F, L]` and true for node 0, to unit vectors `[A, F, S]`."""
        return normalize((self.gates(nodes, mask) * nodes).sum(2), dim=-1, eps=_MIN_NORM)

    def gates(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """The share of each node `[A, F, L, 1]`."""
        gates = self.gate(nodes).sigmoid() * mask.unsqueeze(2)
        return gates / gates.sum(2, keepdim=True).clamp(min=EPSILON)


class SimilarityReasoning(nn.Module):
    """SGR: the similarity vectors of a pair exchange messages on a complete graph; the global one is read out."""

    def __init__(self, size: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(ReasoningStep(size) for _ in range(steps))

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Update nodes `[A, F, L, S]` under a mask, bool `[F, L]`, and return node 0, `[A, F, S]`, always real."""
        for step in self.steps[:-1]:
            nodes = step(nodes, nodes, mask)
        return self.steps[-1](nodes[:, :, :1], nodes, mask).squeeze(2)


class ReasoningStep(nn.Module):
    """One step of message passing on the complete graph: ReLU(W sum_j softmax_j(Q n_i . K n_j) n_j)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.out = (nn.Linear(size, size) for _ in range(3))

    def forward(self, receivers: Tensor, nodes: Tensor, mask: Tensor) -> Tensor:
        """Update the receivers `[A, F, Q, S]` from all nodes `[A, F, L, S]` under a mask, bool `[F, L]`."""
        strength = self.query(receivers) @ self.key(nodes).transpose(2, 3)
        edges = strength.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(3)
        return self.out(edges @ nodes).relu()


def _attention(regions: Tensor, words: Tensor) -> Tensor:
    """The attention `[I, R, T, L]` of words `[T, L, D]` to regions `[I, R, D]`."""
    weights = scan_attention(relations(regions, words), _SHARPNESS)
    return weights / weights.sum(1, keepdim=True)


def _contexts(attention: Tensor, regions: Tensor, words: Tensor) -> Tensor:
    """Unit contexts `[I, T, L, D]` of words that pay this attention to regions."""
    contexts = attention.flatten(2).transpose(1, 2) @ regions
    return normalize(contexts, dim=-1, eps=_MIN_NORM).unflatten(1, words.shape[:2])


def _similarity(compare: nn.Linear, left: Tensor, right: Tensor) -> Tensor:
    """W (left - right)^2 at unit length: `[..., D]` and `[..., D]` -> `[..., S]`."""
    return normalize(compare((left - right).square().to(compare.weight.dtype)), dim=-1, eps=_MIN_NORM)


def _initialise(layer: nn.Module) -> None:
    """Xavier weights and zero biases: squared differences of unit vectors are small, and biases would drown them."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
