"""Both kinds of retrieval as `torchmetrics.Metric`: they collect embeddings, and compute what the functions compute.

Embeddings arrive in any order and in batches of any size, each with the index of its item. Across processes they are
concatenated; an item that arrives twice, as from a sampler that pads the last batch, counts once.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from itmbench.errors import InputError
from itmbench.retrieval.caption import caption_retrieval
from itmbench.retrieval.label import label_retrieval
from itmbench.retrieval.ranking import Normaliser, Ties, check_options


class CaptionRetrieval(Metric):
    """`itmbench.retrieval.caption_retrieval` over pooled vectors that arrive in batches.

    Args:
        text_to_image: the image that each text belongs to `[Nt]`, by index.
        ks: the K of R@K.
        ties: "pessimistic" or "optimistic".
        **kwargs: as for every `torchmetrics.Metric`.

    >>> metric = CaptionRetrieval(text_to_image=[0, 1], ks=(1,))
    >>> metric.update(torch.eye(2), torch.tensor([1, 0]), "image")
    >>> metric.update(torch.eye(2), torch.tensor([1, 0]), "text")
    >>> metric.compute()["rSum"]
    200.0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self,
        text_to_image: Sequence[int] | NDArray | Tensor,
        ks: Sequence[int] = (1, 5, 10),
        ties: Ties = "pessimistic",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_options(ties, cutoffs=tuple(ks))
        self.text_to_image, self.ks, self.ties = torch.as_tensor(text_to_image), tuple(ks), ties
        _add_tables(self, ("image", "text"), ("embeddings", "indices"))

    def update(self, embeddings: Tensor, indices: Tensor, modality: Literal["image", "text"]) -> None:
        """Add vectors `[B, D]` of the images or texts with these indices `[B]`."""
        _append(self, modality, embeddings=embeddings, indices=indices)

    def compute(self) -> dict[str, float]:
        """The keys of `caption_retrieval`.

        Raises:
            InputError: a text of the map, or an image up to the last, has not been given.
        """
        images, texts = _collected(self, "image"), _collected(self, "text")
        for what, table, n in (("image", images, None), ("text", texts, len(self.text_to_image))):
            found = table["indices"]
            expected = torch.arange(len(found) if n is None else n, device=found.device)
            if not torch.equal(found, expected):
                raise InputError(f"{what} indices: {len(found)} of them, not 0 to the last; give every {what} once")
        return caption_retrieval(images["embeddings"], texts["embeddings"], self.text_to_image, self.ks, ties=self.ties)


class LabelRetrieval(Metric):
    """`itmbench.retrieval.label_retrieval` over pooled vectors and labels that arrive in batches, one direction.

    Args:
        cutoffs: the K of the metrics at K.
        normaliser: what AP at K is divided by.
        ties: "pessimistic" or "optimistic".
        **kwargs: as for every `torchmetrics.Metric`.

    >>> metric = LabelRetrieval(cutoffs=())
    >>> metric.update(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), "query")
    >>> metric.update(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), "gallery")
    >>> metric.compute()["mAP"]
    1.0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self,
        cutoffs: Sequence[int] = (50,),
        normaliser: Normaliser = "retrieved",
        ties: Ties = "pessimistic",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_options(ties, normaliser, tuple(cutoffs))
        self.cutoffs, self.normaliser, self.ties = tuple(cutoffs), normaliser, ties
        _add_tables(self, ("query", "gallery"), ("embeddings", "indices", "labels"))

    def update(self, embeddings: Tensor, indices: Tensor, labels: Tensor, side: Literal["query", "gallery"]) -> None:
        """Add vectors `[B, D]` and multi-hot labels `[B, C]` of the items of a side with these indices `[B]`."""
        _append(self, side, embeddings=embeddings, indices=indices, labels=labels)

    def compute(self) -> dict[str, float]:
        """The keys of `label_retrieval`."""
        queries, gallery = _collected(self, "query"), _collected(self, "gallery")
        return label_retrieval(
            queries["embeddings"],
            gallery["embeddings"],
            queries["labels"],
            gallery["labels"],
            self.cutoffs,
            self.normaliser,
            ties=self.ties,
        )


def _add_tables(metric: Metric, tables: Sequence[str], columns: Sequence[str]) -> None:
    for table in tables:
        for column in columns:
            metric.add_state(f"{table}_{column}", default=[], dist_reduce_fx="cat")


def _append(metric: Metric, table: str, **columns: Tensor) -> None:
    for column, values in columns.items():
        if len(values) != len(columns["embeddings"]):
            raise InputError(f"{table}: {len(values)} {column} for {len(columns['embeddings'])} embeddings")
        getattr(metric, f"{table}_{column}").append(values.detach())


def _collected(metric: Metric, table: str) -> dict[str, Tensor]:
    """The columns of a table in order of index, each item once."""
    prefix = f"{table}_"
    parts = {key.removeprefix(prefix): value for key, value in metric.metric_state.items() if key.startswith(prefix)}
    if not len(parts["indices"]):
        raise InputError(f"{table}: nothing to evaluate; update the metric first")
    columns = {key: dim_zero_cat(value) for key, value in parts.items()}
    order = columns["indices"].argsort(stable=True)
    in_order = columns["indices"][order]
    first = torch.ones_like(in_order, dtype=torch.bool)
    first[1:] = in_order.diff() != 0
    return {key: value[order[first]] for key, value in columns.items()}
