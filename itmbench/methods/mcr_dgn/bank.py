"""The frozen bank: encoded training pairs that items attach to at test."""

import numpy as np
import torch
from torch import Tensor, nn

from itmbench.data.corpus import Corpus, Rows
from itmbench.methods.mcr_dgn.context import Blocks, Context, Nodes, Vectors


class Bank(nn.Module):
    """Nodes of training pairs, as buffers of a fixed size; empty until it is filled.

    Args:
        pairs: most pairs that it holds.
        nodes: nodes of an item.
        dim: D, size of a node.
        seen: sizes of what edges to images and to texts are found by, where these are not the nodes.
    """

    image: Tensor
    text: Tensor
    item: Tensor
    seen_image: Tensor
    seen_text: Tensor
    labels: Tensor | None

    def __init__(self, pairs: int, nodes: int, dim: int, seen: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.static = seen is not None
        sizes = {"image": dim, "text": dim} | ({"seen_image": seen[0], "seen_text": seen[1]} if seen else {})
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(pairs, nodes, size))
        self.register_buffer("item", torch.full((pairs,), -1))
        self.register_buffer("labels", None)
        self._made: tuple[Tensor, int, Context] | None = None

    def __len__(self) -> int:
        return int((self.item >= 0).sum())

    def hold_labels(self, labels: int) -> None:
        """Make room for so many labels a pair."""
        if self.labels is None:
            self.labels = torch.zeros(len(self.item), labels, device=self.item.device)

    def fill(
        self,
        item: Tensor,
        image: Tensor,
        text: Tensor,
        seen: Vectors | None = None,
        labels: Tensor | None = None,
    ) -> None:
        """Hold these pairs, and no others.

        Args:
            item: their image rows `[G]`.
            image: nodes `[G, R, D]`.
            text: nodes `[G, R, D]`.
            seen: what edges are found by, where these are not the nodes.
            labels: those that they are trained with `[G, C]`, where there are any.
        """
        if self.labels is not None:
            assert labels is not None
            self.labels[: len(item)] = labels.to(self.labels)
        contents = {"image": image, "text": text}
        if seen is not None:
            contents |= {"seen_image": seen[0], "seen_text": seen[1]}
        self.item.fill_(-1)[: len(item)] = item
        for name, values in contents.items():
            getattr(self, name)[: len(item)] = values

    def context(self, k: int, blocks: Blocks) -> Context | None:
        """What items attach to; None while it is empty. Neighbours are found once for every filling."""
        made = self._made
        if made is None or made[0] is not self.image or made[1] != self.image._version:
            count = len(self)
            if not count:
                return None
            seen = (self.seen_image[:count], self.seen_text[:count]) if self.static else None
            with torch.inference_mode(False):  # training may attach to what a test has made
                context = pair_context(self.item[:count], self.image[:count], self.text[:count], k, blocks, seen)
            self._made = made = (self.image, self.image._version, context)
        return made[2]


def pair_context(
    item: Tensor, image: Tensor, text: Tensor, k: int, blocks: Blocks = "all", seen: Vectors | None = None
) -> Context:
    """The context of pairs.

    Where edges are not found by the nodes but by what lies in spaces of image and text that have nothing in common, a
    target looks at a pair through the half that is of its own modality.

    Args:
        item: image of every pair, int64 `[G]`.
        image: nodes `[G, R, D]`.
        text: nodes `[G, R, D]`.
        k: as for ``Context``.
        blocks: as for ``Context``.
        seen: what edges of images `[G, R, Di]` and of texts `[G, R, Dt]` are found by, of length 1.
    """
    nodes = Nodes(
        torch.cat([image, text]).flatten(0, 1), item.repeat_interleave(image.shape[1]).repeat(2), image[..., 0].numel()
    )
    if seen is None:
        return Context(nodes, k, blocks)
    return Context(nodes, k, blocks, (seen[0].flatten(0, 1).repeat(2, 1), seen[1].flatten(0, 1).repeat(2, 1)))


def bank_rows(corpus: Corpus, pairs: int) -> tuple[Rows, Rows]:
    """Images and texts of at most so many training pairs, one of an image, always the same ones."""
    generator = np.random.default_rng(0)
    texts = generator.permutation(corpus.texts_of(corpus.train))
    images, first = np.unique(corpus.image_trained_with[texts], return_index=True)
    some = np.sort(generator.permutation(len(images))[:pairs])
    return images[some], texts[first[some]]
