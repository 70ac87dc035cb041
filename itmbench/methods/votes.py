"""Plain label votes of nearest training items: what a graph over labelled training items has to beat."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.errors import InputError
from itmbench.methods.memory import Memory
from itmbench.methods.neighbours import fading_top, handicaps, identity
from itmbench.options import Recorded

FAINT = 0.1
"""Length below which label votes are not scaled up, so that they fade with their neighbours' weights."""
TEMPERATURE = 0.1
NARROW = 0.02
"""Least difference of cosine over which a membership fades. Votes are scaled, so a gentle slope costs nothing."""


class LabelVotes(Recorded, Memory):
    """Label votes of the k nearest training items of an item's own modality, beside its vector.

    An item with the unit vector h is represented by unit([h, w v]). The votes v = sum_j a_j (y_j - mean y), at unit
    length unless they are faint, are the labels of its neighbours, relative to the mean label; a is the softmax of
    cosine / 0.1, times the neighbour's membership (`itmbench.methods.neighbours`); cosines are of the vectors relative
    to the mean training vector of the modality. A training item in a gallery does
    not vote for itself. Nothing is trained; validation chooses w.

    Args:
        k: neighbours.
        weights: candidates for w.

    Raises:
        InputError: ``k`` is below 1, or ``weights`` is empty or has a negative number.
    """

    image: Tensor
    text: Tensor
    image_labels: Tensor
    text_labels: Tensor
    weight: Tensor
    kept = ("image", "text", "image_labels", "text_labels")

    def __init__(self, k: int = 16, weights: Sequence[float] = (0.0, 0.2, 0.4, 0.7, 1.0)) -> None:
        super().__init__()
        if k < 1 or not weights or not all(0 <= weight < math.inf for weight in weights):
            raise InputError(f"LabelVotes: k is {k} and weights {list(weights)}; give k >= 1 and weights of at least 0")
        self.k, self.weights = k, list(weights)
        self.register_buffer("weight", torch.tensor(float(self.weights[0])))

    def fill(self, image: Tensor, text: Tensor, image_labels: Tensor, text_labels: Tensor) -> None:
        """Keep the vectors `[N, D]` of all training images and texts, and the labels `[N, C]` of each."""
        self.keep(image=normalize(image.float(), dim=1), text=normalize(text.float(), dim=1))
        self.keep(image_labels=image_labels.float(), text_labels=text_labels.float())

    def forward(self, vectors: Tensor, modality: str) -> Tensor:
        """Votes `[B, C]` for items with the vectors `[B, D]`; `[B, 0]` before the first ``fill``."""
        return scaled(self._relative(vectors, modality))

    def probabilities(self, vectors: Tensor, modality: str) -> Tensor:
        """The same votes as label probabilities `[B, C]`: the mean label of the neighbours, or of all if faint."""
        labels = getattr(self, f"{modality}_labels")
        return self._relative(vectors, modality) + (labels.mean(0) if len(labels) else 0)

    def _relative(self, vectors: Tensor, modality: str) -> Tensor:
        """Mean label of the neighbours relative to the mean label of all, `[B, C]`; shorter where neighbours fade."""
        kept, labels = getattr(self, modality), getattr(self, f"{modality}_labels")
        if not len(kept):
            return vectors.new_zeros(len(vectors), 0)
        vectors, mean = normalize(vectors.float(), dim=1), kept.mean(0)
        cosines = normalize(vectors - mean, dim=1) @ normalize(kept - mean, dim=1).T
        penalty = handicaps(len(kept), kept.device)
        nearest, rows, member, _ = fading_top(cosines - penalty, self.k, NARROW)
        nearest = nearest + penalty[rows]
        others = 1 - identity(vectors.unsqueeze(1), kept[rows])
        shares = (nearest / TEMPERATURE).softmax(1) * member * others
        return (shares.unsqueeze(2) * (labels - labels.mean(0))[rows]).sum(1)


def scaled(votes: Tensor) -> Tensor:
    """Votes `[B, C]` at unit length, and shorter ones where they are faint."""
    return votes / votes.norm(dim=1, keepdim=True).clamp(min=FAINT)


def joined(vectors: Tensor, votes: Tensor, weight: Tensor | float) -> Tensor:
    """Unit vectors `[B, D + C]` of unit vectors `[B, D]` and weighted label votes `[B, C]`."""
    return normalize(torch.cat([vectors, weight * votes], dim=1), dim=1)
