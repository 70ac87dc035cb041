"""SGRAF: a similarity vector for every word and for the whole, which are reasoned over or filtered into one score."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings, masked_mean
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.methods.base import Batch
from itmbench.methods.cross_attention import EPSILON, attention, real_tokens, relations, unit_tokens
from itmbench.methods.losses import InfoNCE, TripletLoss
from itmbench.methods.token_matcher import TokenMatcher

# Vectors shorter than this are not stretched to length 1, so that gradients stay bounded where nothing is left.
SHORTEST = 1e-4


class GlobalAttention(nn.Module):
    """One vector for an item: its tokens, weighted by how they agree with their mean.

    Weights are softmax over i of w (tanh(N(A x_i)) * tanh(N(B mean x))), with N a LayerNorm.

    Args:
        dim: size of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.of_token = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Tanh())
        self.of_mean = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Tanh())
        self.weigh = nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, N, D]` with mask, bool `[B, N]` -> `[B, D]` of length 1; zeros where no token is real."""
        tokens = tokens.to(self.weigh.weight.dtype)
        logits = self.weigh(self.of_token(tokens) * self.of_mean(masked_mean(tokens, mask)).unsqueeze(1)).squeeze(2)
        logits = logits.float().masked_fill(~mask, -torch.inf).masked_fill(~mask.any(1, keepdim=True), 0.0)
        weights = (logits.softmax(1) * mask).unsqueeze(2)
        return normalize((weights * tokens).sum(1), dim=-1, eps=SHORTEST)


class SimilarityFiltration(nn.Module):
    """SAF: the gated average of a pair's similarity vectors (Diao et al., AAAI 2021).

    Args:
        size: S, of the vectors.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, 1)

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Nodes `[A, F, L, S]` with mask, bool `[F, L]`, the first always real -> `[A, F, S]` of length 1."""
        gates = self.gate(nodes).sigmoid() * mask.unsqueeze(2)
        gates = gates / gates.sum(2, keepdim=True).clamp(min=EPSILON)
        return normalize((gates * nodes).sum(2), dim=-1, eps=SHORTEST)


class SimilarityReasoning(nn.Module):
    """SGR: the similarity vectors of a pair exchange what they know, and the global one is read (Diao et al. 2021).

    Args:
        size: S, of the vectors.
        steps: of reasoning, each with weights of its own.
    """

    def __init__(self, size: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(ReasoningStep(size) for _ in range(steps))

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Nodes `[A, F, L, S]` with mask, bool `[F, L]`, the first always real -> the first one `[A, F, S]`."""
        for step in self.steps[:-1]:
            nodes = step(nodes, nodes, mask)
        return self.steps[-1](nodes[:, :, :1], nodes, mask).squeeze(2)


class ReasoningStep(nn.Module):
    """One step on the complete graph: ReLU(W sum_j softmax_j(Q n_i . K n_j) n_j).

    Args:
        size: S, of the nodes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.out = (nn.Linear(size, size) for _ in range(3))

    def forward(self, asking: Tensor, nodes: Tensor, mask: Tensor) -> Tensor:
        """Asking nodes `[A, F, Q, S]`, all nodes `[A, F, L, S]` and their mask, bool `[F, L]` -> `[A, F, Q, S]`."""
        strength = self.query(asking) @ self.key(nodes).transpose(2, 3)
        edges = strength.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(3)
        return self.out(edges @ nodes).relu()


_SHARPNESS = 9.0


class SGRAF(TokenMatcher):
    """Similarity graph reasoning or attention filtration (Diao et al., AAAI 2021).

    Words attend to regions as in SCAN. The similarity vector of a word t and its context c is that of W (t - c)^2 at
    length 1; one more compares image and text as wholes. The score is the sigmoid of a linear readout.

    Args:
        dim: D, size of the tokens and of the common space.
        module: ``saf`` averages the similarity vectors by gates, ``sgr`` lets them reason on a graph.
        similarity_dim: S, size of the similarity vectors; the price of a pair grows with its square under ``sgr``.
        steps: of reasoning, at least 1; ``sgr`` only.
        loss: of the in-batch scores, which are between 0 and 1; hardest-negative triplets after a warm-up by default.
        **kwargs: those of ``Matcher``.
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
            raise InputError(f"SGRAF: {steps} steps of reasoning; give at least 1")
        self.project_image = nn.Linear(self.image.width, dim)
        self.project_text = nn.Linear(self.text.width, dim)
        self.whole_image, self.whole_text = GlobalAttention(dim), GlobalAttention(dim)
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
            part.apply(_start)

    def encode_image(self, images: Inputs) -> Embeddings:
        return _whole(self.whole_image, unit_tokens(self.project_image, self.image(images)))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return _whole(self.whole_text, unit_tokens(self.project_text, self.text(tokens)))

    def within(self, items: Embeddings) -> Tensor:
        """The tokens in full precision `[B, N, D]`."""
        return real_tokens(items)

    def score_block(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        assert text.mask is not None
        with torch.autocast(image.pooled.device.type, enabled=False):
            contexts = _contexts(within_image, within_text)
            of_words = _similarity(self.compare_words, within_text, contexts)
            of_wholes = _similarity(self.compare_wholes, image.pooled.float().unsqueeze(1), text.pooled.float())
            nodes = torch.cat([of_wholes.unsqueeze(2), of_words], 2)
            real = torch.cat([text.mask.new_ones(len(text), 1), text.mask], 1)
            return self.read(self.head(nodes, real)).squeeze(2).sigmoid()

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        return self.loss(self.score(image, text), positives)


def _contexts(regions: Tensor, words: Tensor) -> Tensor:
    """What words attend to, at length 1: regions `[I, R, D]` and words `[T, L, D]` -> `[I, T, L, D]`."""
    weights = attention(relations(regions, words), _SHARPNESS)  # [I, R, T, L]
    weights = (weights / weights.sum(1, keepdim=True)).flatten(2).transpose(1, 2)
    return normalize(weights @ regions, dim=-1, eps=SHORTEST).unflatten(1, words.shape[:2])


def _whole(attention: GlobalAttention, items: Embeddings) -> Embeddings:
    """The same items with the attended whole as pooled vector."""
    assert items.tokens is not None and items.mask is not None
    return Embeddings(attention(items.tokens, items.mask), items.tokens, items.mask)


def _similarity(compare: nn.Linear, left: Tensor, right: Tensor) -> Tensor:
    """W (left - right)^2 at length 1: `[..., D]` and `[..., D]` -> `[..., S]`."""
    return normalize(compare((left - right).square().to(compare.weight.dtype)), dim=-1, eps=SHORTEST)


def _start(layer: nn.Module) -> None:
    """Xavier weights and biases of 0: squared differences of unit vectors are so small that biases would drown them."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
