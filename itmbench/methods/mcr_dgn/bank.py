"""The frozen bank of encoded training pairs, which test items attach to."""

import numpy as np
import torch
from torch import Tensor, nn

from itmbench.data.corpus import Corpus, Rows
from itmbench.methods.mcr_dgn.context import Blocks, Context, Nodes, Vectors


class Bank(nn.Module):
    """Nodes of training pairs in buffers of fixed size, empty until filled.

    Args:
        pairs: capacity, in pairs.
        nodes: R, nodes per item.
        dim: D, size of a node.
        keys: sizes of the vectors by which image and text edges are found, if these are not the nodes.
    """

    image: Tensor
    text: Tensor
    item: Tensor
    image_keys: Tensor
    text_keys: Tensor
    labels: Tensor | None

    def __init__(self, pairs: int, nodes: int, dim: int, keys: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.static = keys is not None
        sizes = {"image": dim, "text": dim} | ({"image_keys": keys[0], "text_keys": keys[1]} if keys else {})
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(pairs, nodes, size))
        self.register_buffer("item", torch.full((pairs,), -1))
        self.register_buffer("labels", None)
        self._cached: tuple[Tensor, int, Context] | None = None

    def __len__(self) -> int:
        return int((self.item >= 0).sum())

    def hold_labels(self, labels: int) -> None:
        """Allocate ``labels`` labels per pair."""
        if self.labels is None:
            self.labels = torch.zeros(len(self.item), labels, device=self.item.device)

    def fill(
        self, item: Tensor, image: Tensor, text: Tensor, keys: Vectors | None = None, labels: Tensor | None = None
    ) -> None:
        """Replace the contents by the given pairs, with their training labels `[G, C]`; else as in ``pair_context``."""
        if self.labels is not None:
            assert labels is not None
            self.labels[: len(item)] = labels.to(self.labels)
        contents = {"image": image, "text": text}
        if keys is not None:
            contents |= {"image_keys": keys[0], "text_keys": keys[1]}
        self.item.fill_(-1)[: len(item)] = item
        for name, values in contents.items():
            getattr(self, name)[: len(item)] = values

    def context(self, k: int, blocks: Blocks) -> Context | None:
        """The context that items attach to, or None if the bank is empty. Neighbours are found once per filling."""
        cached = self._cached
        if cached is None or cached[0] is not self.image or cached[1] != self.image._version:
            count = len(self)
            if not count:
                return None
            keys = (self.image_keys[:count], self.text_keys[:count]) if self.static else None
            with torch.inference_mode(False):  # training may reuse a context that a test computed
                context = pair_context(self.item[:count], self.image[:count], self.text[:count], k, blocks, keys)
            self._cached = cached = (self.image, self.image._version, context)
        return cached[2]


def pair_context(
    item: Tensor, image: Tensor, text: Tensor, k: int, blocks: Blocks = "all", keys: Vectors | None = None
) -> Context:
    """Build the context of the given pairs.

    With ``keys``, image and text vectors lie in unrelated spaces, so a target compares itself with the half of each
    pair that is of its own modality.

    Args:
        item: image of every pair, int64 `[G]`.
        image: image nodes `[G, R, D]`.
        text: text nodes `[G, R, D]`.
        keys: unit vectors by which edges of images `[G, R, Di]` and of texts `[G, R, Dt]` are found, if these are not
            the nodes.
    """
    nodes = Nodes(
        torch.cat([image, text]).flatten(0, 1), item.repeat_interleave(image.shape[1]).repeat(2), image[..., 0].numel()
    )
    if keys is not None:
        keys = keys[0].flatten(0, 1).repeat(2, 1), keys[1].flatten(0, 1).repeat(2, 1)
    return Context(nodes, k, blocks, keys)


def bank_rows(corpus: Corpus, pairs: int) -> tuple[Rows, Rows]:
    """Rows of the images and texts of a fixed sample of at most ``pairs`` training pairs, one per image."""
    generator = np.random.default_rng(0)
    texts = generator.permutation(corpus.texts_of(corpus.train))
    images, first = np.unique(corpus.image_trained_with[texts], return_index=True)
    sample = np.sort(generator.permutation(len(images))[:pairs])
    return images[sample], texts[first[sample]]
