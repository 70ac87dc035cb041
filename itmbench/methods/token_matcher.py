"""Methods that score pairs by their tokens: exactly, without padding, and in bounded memory."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from itmbench.encoders import Embeddings
from itmbench.methods.base import Matcher
from itmbench.methods.cross_attention import gram

# Relations (region x word) per block. On a CPU a block fits the cache; on a GPU it is large enough to fill it.
_EVALUATED = {"cpu": 1 << 20}
_EVALUATED_ELSEWHERE = 1 << 26
# With gradients, a block keeps its intermediate values, or recomputes them if there are several blocks.
_TRAINED = 1 << 26


class TokenMatcher(Matcher):
    """Base of the methods whose score depends on the tokens of both sides; a subclass implements ``score_block``."""

    channels = 0
    """Numbers per image and word that a block holds beside the relations of the word with the regions."""

    def within(self, items: Embeddings) -> Tensor:
        """What a score needs from the tokens of each item alone `[B, ...]`, computed once for all blocks.

        By default their Gram matrices `[B, N, N]`.
        """
        assert items.tokens is not None
        return gram(items.tokens)

    def score_block(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        """Score every image with every text of a block, `[Ni, Nt]`; no pair may influence another."""
        raise NotImplementedError

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        """Score every image with every text, `[Ni, Nt]`, block by block."""
        if torch.is_grad_enabled():
            return self._score_with_gradients(image, text)
        assert image.tokens is not None and text.mask is not None
        limit = _EVALUATED.get(image.pooled.device.type, _EVALUATED_ELSEWHERE)
        scores = torch.empty(len(image), len(text), device=image.pooled.device)
        within_image = self.within(image)
        lengths = text.mask.sum(1)
        # Group texts of one length, so that relations with padding are never computed.
        for length in lengths.unique().tolist():
            same_length = (lengths == length).nonzero().squeeze(1)
            # Wide blocks: all texts of a length with as many images as fit.
            per_text = (image.tokens.shape[1] + self.channels) * max(1, length)
            for columns in same_length.split(max(1, limit // per_text)):
                block = without_padding(text[columns], length)
                within_text = self.within(block)
                height = max(1, limit // (per_text * len(columns)))
                for top in range(0, len(image), height):
                    rows = slice(top, top + height)
                    scores[rows, columns] = self.score_block(
                        image[rows], block, within_image[rows], within_text
                    ).float()
        return scores

    def _score_with_gradients(self, image: Embeddings, text: Embeddings) -> Tensor:
        """Score in one block if it fits, else in blocks of images that recompute their intermediate values."""
        assert image.tokens is not None and text.tokens is not None
        within_image, within_text = self.within(image), self.within(text)
        relations = len(image) * (image.tokens.shape[1] + self.channels) * text.tokens[..., 0].numel()
        if relations <= _TRAINED:
            return self.score_block(image, text, within_image, within_text)
        height = max(1, len(image) * _TRAINED // relations)
        blocks = [
            checkpoint(self.score_block, image[rows], text, within_image[rows], within_text, use_reentrant=False)
            for rows in (slice(top, top + height) for top in range(0, len(image), height))
        ]
        return torch.cat(blocks)


def without_padding(items: Embeddings, length: int) -> Embeddings:
    """Strip the padding from items that all have ``length`` real tokens; keep one masked token if there are none."""
    assert items.tokens is not None and items.mask is not None
    if length == 0:
        return Embeddings(items.pooled, items.tokens[:, :1], items.mask[:, :1])
    if length == items.tokens.shape[1]:
        return items
    tokens = items.tokens[items.mask].view(len(items), length, -1)
    return Embeddings(items.pooled, tokens, items.mask.new_ones(len(items), length))
