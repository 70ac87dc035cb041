"""Inter-modal dynamic relation awareness (Fig. 3): each word finds its regions in every image anew."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings
from itmbench.encoders.base import hiding, padded

Inter = Literal["dynamic", "mean"]

DROPOUT = 0.2
"""Probability, in training, of dropping a number of a word's vector."""
SHARPNESS = 20.0
"""Sharpness of the smooth maximum over the regions; 10 and 40 gave the same on validation."""


class Words(nn.Module):
    """Semantic enhancement of words: a unit vector for each, whatever its context, and a share of the text.

    The vector of a word is that with which the text encoder reads it (its input embedding), projected, plus a learned
    one. Contextual tokens would repeat what the other paths compare: with them the sum of the paths gained less. The
    share of a word is the softmax, over the words of the text, of a learned importance of the token and of the word.
    Special tokens such as [CLS] are left out.

    Args:
        width: W, size of the tokens.
        dim: D, size of the vectors.
        embedding: the encoder's input embeddings; None if its tokens are not words, and are projected themselves.
    """

    def __init__(self, width: int, dim: int, embedding: nn.Embedding | None) -> None:
        super().__init__()
        self.importance, self.dropout = nn.Linear(width, 1), nn.Dropout(DROPOUT)
        self.project = nn.Linear(width if embedding is None else embedding.embedding_dim, dim)
        self.vectors = self.importances = None
        if embedding is not None:
            self.vectors = nn.Embedding(embedding.num_embeddings, dim)
            self.importances = nn.Embedding(embedding.num_embeddings, 1)
            for table in (self.vectors, self.importances):
                nn.init.zeros_(table.weight)

    def forward(self, items: Embeddings, embedding: nn.Embedding | None, learns: bool) -> tuple[Tensor, Tensor]:
        """Turn tokens `[B, L, W]` into vectors with shares `[B, L, D + 1]`, 0 unless a token is a word, and a mask.

        Args:
            items: texts, with their words where there is a vocabulary.
            embedding: the encoder's input embeddings.
            learns: whether these get gradients.
        """
        assert items.tokens is not None and items.mask is not None
        mask, importance = items.mask, self.importance(items.tokens)
        if self.vectors is None or self.importances is None or embedding is None:
            vectors = self.project(items.tokens)
        else:
            assert items.words is not None
            mask, words = mask & (items.words >= 0), items.words.clamp(min=0)
            known = embedding(words) if learns else embedding(words).detach()
            vectors = self.project(normalize(known, dim=-1)) + self.vectors(words)
            importance = importance + self.importances(words)
        hidden = ~mask.unsqueeze(2)
        empty = ~mask.any(1)[:, None, None]
        shares = importance.float().masked_fill(hidden, -torch.inf).masked_fill(empty, 0.0).softmax(1)
        unit = normalize(self.dropout(vectors), dim=-1)
        return torch.cat([unit, shares.to(unit.dtype)], dim=2).masked_fill(hidden, 0.0), mask


class InterModalRelations(nn.Module):
    """Score pairs by how well each word finds a region: sum_w a_w (1 / s) log sum_r exp(s cos(e_w, v_r)).

    Vectors e_w and shares a_w of the words are those of ``Words``. The log-sum-exp is a smooth maximum over the
    regions v_r; that every word takes its best region is SCAN's and FILIP's late interaction (Yao et al., ICLR 2022).

    Args:
        mode: ``mean`` relates every word to all regions alike, whatever the image: the control.
    """

    def __init__(self, mode: Inter = "dynamic") -> None:
        super().__init__()
        self.mode = mode

    def forward(self, image: Embeddings, text: Embeddings) -> Tensor:
        """Scores, float32 `[I, T]`.

        Args:
            image: unit vectors of regions and a last column of zeros, tokens `[I, R, D + 1]`.
            text: unit vectors of words and their shares, 0 for padding, tokens `[T, L, D + 1]`.
        """
        assert image.tokens is not None and text.tokens is not None and text.mask is not None
        if not (padded(text.mask) and text.pooled.device.type == "cpu"):
            found = self.find(image, text.tokens.flatten(0, 1)).unflatten(1, text.tokens.shape[:2])
            return (found * text.tokens[..., -1].float()).sum(2)
        words = text.tokens[text.mask]  # half of a training batch is padding
        texts = torch.arange(len(text)).repeat_interleave(text.mask.sum(1))
        owns = texts.unsqueeze(1) == torch.arange(len(text))
        return self.find(image, words) @ (owns * words[:, -1:].float())

    def find(self, image: Embeddings, words: Tensor) -> Tensor:
        """How well each word `[M, D + 1]` finds a region of each image, float32 `[I, M]`."""
        assert image.mask is not None
        strengths = self._strengths(image, words)
        if self.mode == "mean":  # the vectors of padded regions are 0
            return strengths.sum(1) / image.mask.sum(1, keepdim=True) / SHARPNESS
        return strengths.exp().sum(1).log() / SHARPNESS

    def regions(self, image: Embeddings, words: Tensor) -> Tensor:
        """The share of each region in what each word finds, float32 `[I, R, M]`: the gradient of the smooth maximum."""
        assert image.mask is not None
        if self.mode == "mean":
            shares = image.mask.float() / image.mask.sum(1, keepdim=True)
            return shares.unsqueeze(2).expand(-1, -1, len(words))
        return self._strengths(image, words).softmax(1)

    def _strengths(self, image: Embeddings, words: Tensor) -> Tensor:
        """Sharpened cosines `[I, R, M]`; padded regions are as good as absent."""
        assert image.tokens is not None and image.mask is not None
        regions = SHARPNESS * image.tokens.float()
        strengths = (regions.flatten(0, 1) @ words.float().T).view(*regions.shape[:2], len(words))
        if self.mode == "mean" or not padded(image.mask):
            return strengths
        return strengths + hiding(image.mask).unsqueeze(2)
