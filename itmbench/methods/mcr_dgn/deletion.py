"""Whether the attention reflects the importance of edges: what is lost as they are removed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, pstdev
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from itmbench.data.datamodule import CorpusDataModule
from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.methods.base import Modality
from itmbench.methods.explained import MODALITIES
from itmbench.methods.mcr_dgn.graph import Keep
from itmbench.methods.mcr_dgn.module import MCRDGN


@dataclass(frozen=True)
class Deletion:
    """Two deletion curves: the quality of the embeddings as edges are removed (Petsiuk et al., "RISE", BMVC 2018)."""

    shares: Sequence[float]  # share of every node's edges that is removed, rounded up `[S]`
    strongest: Sequence[float]  # quality without the edges of highest attention `[S]`
    random: Sequence[Sequence[float]]  # quality without as many random edges, one row per draw `[draws, S]`
    whole: float  # quality with all edges
    none: float  # quality without edges

    @property
    def gap(self) -> float:
        """Mean difference of the curves. Above 0, the attention identifies the edges that matter."""
        return mean(self._gaps)

    @property
    def spread(self) -> float:
        """Standard deviation of the gap over the draws of random edges."""
        return pstdev(self._gaps)

    @property
    def _gaps(self) -> list[float]:
        return [mean(draw) - mean(self.strongest) for draw in self.random]


@torch.no_grad()
def deletion(
    model: MCRDGN,
    images: Iterable[Inputs],
    texts: Iterable[Inputs],
    quality: Callable[[Embeddings, Embeddings], float],
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    draws: int = 3,
    seed: int = 0,
) -> Deletion:
    """Compare removing the edges of highest attention with removing as many random edges, ``draws`` times.

    The model is in eval mode; batches are on its device and encoded once. ``quality`` measures the image and text
    embeddings, in the order of the batches; higher is better. ``shares`` of every node's edges are removed, rounded up.

    Raises:
        InputError: the model has no graph, the bank is empty, or ``draws`` is below 1.
    """
    if draws < 1:
        raise InputError(f"explain: draws is {draws}; give 1 or more")
    generator = torch.Generator().manual_seed(seed)
    embedded: dict[Modality, list[Embeddings]] = {}
    for modality, encoder, batches in zip(MODALITIES, (model.image, model.text), (images, texts), strict=True):
        model.attached(modality)
        embedded[modality] = [model.embed(encoder(inputs), modality) for inputs in batches]

    def quality_with(keep: Keep | None) -> float:
        vectors = (
            torch.cat([model.ranked(items, modality, keep).pooled for items in parts])
            for modality, parts in embedded.items()
        )
        return quality(*map(Embeddings, vectors))

    return Deletion(
        shares=shares,
        strongest=[quality_with(without_strongest(share)) for share in shares],
        random=[[quality_with(without_random(share, generator)) for share in shares] for _ in range(draws)],
        whole=quality_with(None),
        none=quality_with(without_strongest(1.0)),
    )


def without_strongest(share: float) -> Keep:
    """Remove the given share of every node's edges, those of highest attention first."""
    return lambda attention: ~_first(attention, attention, share)


def without_random(share: float, generator: torch.Generator) -> Keep:
    """Remove a random share of every node's edges."""

    def keep(attention: Tensor) -> Tensor:
        return ~_first(torch.rand(attention.shape, generator=generator).to(attention.device), attention, share)

    return keep


def _first(values: Tensor, attention: Tensor, share: float) -> Tensor:
    """Mark the edges within the given share, rounded up, of a node's highest values, bool `[B, k]`."""
    exist = attention > 0
    rank = values.masked_fill(~exist, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank < (share * exist.sum(1, keepdim=True)).ceil()


def measure_deletion(model: MCRDGN, data: CorpusDataModule, draws: int) -> Deletion:
    """Deletion curves of the protocol's objective on the test stage; arguments as in ``deletion``."""
    index: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
    images, texts = (
        _batches(loader, modality, index[modality], model.device)
        for modality, loader in zip(MODALITIES, data.eval_dataloaders("test"), strict=True)
    )

    def quality(image: Embeddings, text: Embeddings) -> float:
        rows = {modality: torch.cat(parts) for modality, parts in index.items()}
        encoded = {"image": [(rows["image"], image)], "text": [(rows["text"], text)]}
        return float(model.evaluate(model.tables(encoded, "test"), "test").metrics[model.evaluated_by.objective])

    return deletion(model, images, texts, quality, draws=draws)


def _batches(loader: DataLoader[Any], modality: str, index: list[Tensor], device: torch.device) -> Iterator[Inputs]:
    """Inputs of a loader on the device; the corpus rows of each batch are appended to the index."""
    for batch in loader:
        moved = move_data_to_device(batch, device)
        index.append(moved["index"])
        yield moved[modality]
