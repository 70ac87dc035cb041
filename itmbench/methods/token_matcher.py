"""Methods that score a pair by its tokens: exactly, without padding, in memory that does not grow with the pairs."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from itmbench.encoders import Embeddings
from itmbench.methods.base import Matcher
from itmbench.methods.cross_attention import gram

# Relations (region x word) of one block. On a CPU a block stays in the cache; on a GPU it is large enough to fill it.
_EVALUATED = {"cpu": 1 << 20}
_EVALUATED_ELSEWHERE = 1 << 26
# With gradients, everything that a block computes is kept, or computed again when there are several blocks.
_TRAINED = 1 << 26


class TokenMatcher(Matcher):
    """Base of the methods whose score looks at the tokens of both sides; a subclass gives ``score_block``."""

    channels = 0
    """Numbers that a block holds for every image and word, beside the relations of the word to the regions."""

    def within(self, items: Embeddings) -> Tensor:
        """What a score needs of an item's tokens among themselves `[B, ...]`, computed once for all blocks.

        By default the Gram matrices `[B, N, N]`.
        """
        assert items.tokens is not None
        return gram(items.tokens)

    def score_block(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        """Scores `[Ni, Nt]` of every image with every text of a block; no pair may influence another."""
        raise NotImplementedError

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        """Scores `[Ni, Nt]` of every image with every text, block by block."""
        if torch.is_grad_enabled():
            return self._score_with_gradients(image, text)
        assert image.tokens is not None and text.mask is not None
        most = _EVALUATED.get(image.pooled.device.type, _EVALUATED_ELSEWHERE)
        scores = torch.empty(len(image), len(text), device=image.pooled.device)
        within_image = self.within(image)
        lengths = text.mask.sum(1)
        # Texts of one length together: no relation to a padded word is ever computed.
        for length in lengths.unique().tolist():
            columns = (lengths == length).nonzero().squeeze(1)
            # Wide blocks: all texts of a length with a few images, as many as fit.
            per_text = (image.tokens.shape[1] + self.channels) * max(1, length)
            for some in columns.split(max(1, most // per_text)):
                block = without_padding(text[some], length)
                within_text = self.within(block)
                height = max(1, most // (per_text * len(some)))
                for top in range(0, len(image), height):
                    part = slice(top, top + height)
                    scores[part, some] = self.score_block(image[part], block, within_image[part], within_text).float()
        return scores

    def _score_with_gradients(self, image: Embeddings, text: Embeddings) -> Tensor:
        """One block where it fits; else blocks of images whose inner values are computed twice instead of kept."""
        assert image.tokens is not None and text.tokens is not None
        within_image, within_text = self.within(image), self.within(text)
        relations = len(image) * (image.tokens.shape[1] + self.channels) * text.tokens[..., 0].numel()
        if relations <= _TRAINED:
            return self.score_block(image, text, within_image, within_text)
        height = max(1, len(image) * _TRAINED // relations)
        blocks = [
            checkpoint(self.score_block, image[part], text, within_image[part], within_text, use_reentrant=False)
            for part in (slice(top, top + height) for top in range(0, len(image), height))
        ]
        return torch.cat(blocks)


def without_padding(items: Embeddings, length: int) -> Embeddings:
    """Items that all have ``length`` real tokens, with these tokens only; one masked token where there are none."""
    assert items.tokens is not None and items.mask is not None
    if length == 0:
        return Embeddings(items.pooled, items.tokens[:, :1], items.mask[:, :1])
    if length == items.tokens.shape[1]:
        return items
    tokens = items.tokens[items.mask].view(len(items), length, -1)
    return Embeddings(items.pooled, tokens, items.mask.new_ones(len(items), length))
