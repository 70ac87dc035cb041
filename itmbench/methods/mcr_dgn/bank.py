"""The frozen bank: nodes of encoded training pairs, which test items attach to."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from itmbench.data.corpus import Corpus, Rows
from itmbench.methods.base import Modality
from itmbench.methods.mcr_dgn.context import Context, Rule
from itmbench.methods.memory import Memory


class Nodes(NamedTuple):
    """The nodes of B items."""

    item: Tensor  # one per item, of its pooled vector, at unit length `[B, D]`
    labels: Tensor  # one per item and label, of the regions or words that the label attends to `[B, C, E]`


class Contexts(NamedTuple):
    """The bank's nodes of one modality, by kind: those of whole items, and those of each label."""

    item: Context
    labels: list[Context]


class Bank(Memory):
    """Nodes and training labels of P pairs: ``rows``, the images, int64 `[P]`; ``labels`` `[P, C]`."""

    rows: Tensor
    labels: Tensor
    image: Tensor
    text: Tensor
    image_labels: Tensor
    text_labels: Tensor
    kept = ("rows", "labels", "image", "text", "image_labels", "text_labels")

    def __init__(self) -> None:
        super().__init__()
        self._contexts: dict[Modality, tuple[Tensor, int, Contexts]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def fill(self, rows: Tensor, labels: Tensor, image: Nodes, text: Nodes) -> None:
        """Replace the contents."""
        self.keep(rows=rows, labels=labels.float(), image=image.item.float(), text=text.item.float())
        self.keep(image_labels=image.labels.float(), text_labels=text.labels.float())

    def contexts(self, modality: Modality, k: int, rule: Rule) -> Contexts:
        """What items of a modality attach to; computed once per filling. The bank must not be empty."""
        items, of_labels = getattr(self, modality), getattr(self, f"{modality}_labels")
        cached = self._contexts.get(modality)
        if cached is None or cached[0] is not items or cached[1] != items._version:
            with torch.inference_mode(False), torch.no_grad():
                contexts = Contexts(Context(items, k, rule), [Context(nodes, k, rule) for nodes in of_labels.unbind(1)])
            self._contexts[modality] = cached = (items, items._version, contexts)
        return cached[2]


def bank_rows(corpus: Corpus, pairs: int) -> tuple[Rows, Rows]:
    """Rows of the images and texts of a fixed sample of at most ``pairs`` training pairs, one per image."""
    generator = np.random.default_rng(0)
    texts = generator.permutation(corpus.texts_of(corpus.train))
    images, first = np.unique(corpus.image_trained_with[texts], return_index=True)
    sample = np.sort(generator.permutation(len(images))[:pairs])
    return images[sample], texts[first[sample]]
