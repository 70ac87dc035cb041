"""P-GNN of GNN4CMR (Qian et al., TPAMI 2023): contrast by shared labels, classifiers from a graph of the labels."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from itmbench.data.corpus import Corpus
from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Batch, Modality
from itmbench.methods.distributed import gather_rows
from itmbench.methods.losses import InfoNCE, label_error
from itmbench.methods.relevance import LabelMatcher


class GNN4CMR(LabelMatcher):
    """Projections trained by shared labels and by classifiers from a label graph. The data must have labels.

    Args:
        dim: D, size of the common space.
        layers: number of graph convolutions over the labels; the authors use four or five.
        temperature: temperature of the contrast.
        intra_weight: weight of the contrast within each modality.
        label_weight: weight of the label prediction error; the authors use 0.5 on MirFlickr-25K and 0.8 on NUS-WIDE.
        **kwargs: arguments of ``LabelMatcher``.

    Raises:
        InputError: ``layers`` is below 1.
    """

    reads_tokens = False

    def __init__(
        self,
        dim: int = 256,
        layers: int = 5,
        temperature: float = 0.22,
        intra_weight: float = 0.14,
        label_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if layers < 1:
            raise InputError(f"GNN4CMR: layers is {layers}; give 1 or more")
        self.dim, self.layers, self.intra_weight, self.label_weight = dim, layers, intra_weight, label_weight
        self.hash_head = self.make_hash_head(dim)
        self.project = self.per_modality(lambda width: nn.Linear(width, dim))
        self.classifiers: LabelClassifiers | None = None  # built once the labels are known
        self.contrast = InfoNCE(temperature, learn_temperature=False)

    def adapt(self, corpus: Corpus) -> None:
        labels = self.training_labels(corpus)
        super().adapt(corpus)
        if self.classifiers is None:
            self.classifiers = LabelClassifiers(label_graph(labels), self.dim, self.layers)

    def adapt_to_state(self, state: Mapping[str, Tensor]) -> None:
        if self.classifiers is None:
            self.classifiers = LabelClassifiers(state["classifiers.graph"].clone(), self.dim, self.layers)

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        return Embeddings(self.project[modality](items.pooled))

    def predict_labels(self, vectors: Tensor) -> Tensor:
        assert self.classifiers is not None
        return self.score(Embeddings(vectors), Embeddings(self.classifiers()))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        labels = gather_rows(self, batch["labels"])
        across = positives.float()
        within = across.clone().fill_diagonal_(0.0)
        # InfoNCE averages the two directions and the paper adds them; within a modality they are the same.
        contrast = 2 * self.contrast(self.score(image, text), across) + self.intra_weight * (
            self.contrast(self.score(image, image), within) + self.contrast(self.score(text, text), within)
        )
        label_loss = sum(label_error(self.predict_labels(items.pooled), labels) for items in (image, text))
        return contrast + self.label_weight * label_loss + self.hash_loss(image.pooled, text.pooled, positives)


class LabelClassifiers(nn.Module):
    """One classifier vector per label, from graph convolutions (Kipf and Welling, ICLR 2017) over the label graph.

    As in P-GNN, a linear map of the outputs of all layers gives the classifiers. The edge weights `[C, C]` are those of
    ``label_graph``.
    """

    graph: Tensor

    def __init__(self, graph: Tensor, dim: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("graph", graph)
        self.vectors = nn.Parameter(torch.randn(len(graph), dim))
        from torch_geometric.nn import DenseGCNConv

        # Rows of the graph sum to 1, so the layers' own normalisation by degree changes nothing.
        self.layers = nn.ModuleList([DenseGCNConv(dim, dim) for _ in range(layers)])
        self.out = nn.Linear(layers * dim, dim)

    def forward(self) -> Tensor:
        """Return the classifiers `[C, D]`."""
        nodes: Tensor = self.vectors
        outputs: list[Tensor] = []
        for layer in self.layers:
            nodes = leaky_relu(layer(nodes, self.graph, add_loop=False)[0], 0.2)
            outputs.append(nodes)
        return self.out(torch.cat(outputs, dim=1))


def label_graph(labels: Tensor) -> Tensor:
    """The graph `[C, C]` of labels, multi-hot `[N, C]`, that occur together: item counts, with rows that sum to 1.

    A label without items is connected with itself only.
    """
    counts = labels.T @ labels
    counts.diagonal()[labels.sum(0) == 0] = 1
    return counts / counts.sum(1, keepdim=True)
