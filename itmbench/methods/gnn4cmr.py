"""P-GNN of GNN4CMR (Qian et al., TPAMI 2023): soft contrast by shared labels, classifiers from the label graph."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch_geometric.nn import GCNConv

from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.methods.base import Batch, Matcher
from itmbench.methods.distributed import gather_rows
from itmbench.methods.losses import InfoNCE, label_error


def label_graph(labels: Tensor) -> Tensor:
    """How strongly a label is tied to every other `[C, C]`, from multi-hot labels `[N, C]`; rows add up to 1.

    Row i, column j: the number of items with both, of which an item with i is one with itself. A label that no item has
    is tied to itself alone.
    """
    together = labels.T @ labels
    together.diagonal()[labels.sum(0) == 0] = 1
    return together / together.sum(1, keepdim=True)


class LabelClassifiers(nn.Module):
    """A vector for every label, by graph convolutions (Kipf and Welling 2017) over the label graph.

    The outputs of all layers together are mapped to the classifiers, as in P-GNN.

    Args:
        graph: weights `[C, C]`, at least 0, of ``label_graph``.
        dim: size of label vectors, of all layers and of the classifiers.
        layers: number of graph convolutions.
    """

    edges: Tensor
    weights: Tensor

    def __init__(self, graph: Tensor, dim: int, layers: int) -> None:
        super().__init__()
        target, source = graph.nonzero().T
        # The graph is made anew of the training labels wherever the model is set up; checkpoints need not hold it.
        self.register_buffer("edges", torch.stack([source, target]), persistent=False)
        self.register_buffer("weights", graph[target, source], persistent=False)
        self.vectors = nn.Parameter(torch.randn(len(graph), dim))
        # The rows of the graph add up to 1, so GCNConv has nothing to normalise.
        self.layers = nn.ModuleList([GCNConv(dim, dim, normalize=False) for _ in range(layers)])
        self.out = nn.Linear(layers * dim, dim)

    def forward(self) -> Tensor:
        """Classifiers `[C, D]`."""
        nodes: Tensor = self.vectors
        outputs: list[Tensor] = []
        for layer in self.layers:
            nodes = leaky_relu(layer(nodes, self.edges, self.weights), 0.2)
            outputs.append(nodes)
        return self.out(torch.cat(outputs, dim=1))


class GNN4CMR(Matcher):
    """Projections trained by shared labels and by classifiers of a graph of the labels; the data must have labels.

    Args:
        dim: size of the common space.
        layers: graph convolutions over the labels.
        temperature: what cosines are divided by in the contrast.
        intra_weight: factor on the contrast within each modality.
        label_weight: factor on the error of the predicted labels.
        **kwargs: those of ``Matcher``.

    Raises:
        InputError: there is no layer.
    """

    def __init__(
        self,
        dim: int = 256,
        layers: int = 2,
        temperature: float = 0.22,
        intra_weight: float = 0.14,
        label_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if layers < 1:
            raise InputError(f"GNN4CMR: layers {layers} make no graph network; give 1 or more")
        self.dim, self.layers, self.intra_weight, self.label_weight = dim, layers, intra_weight, label_weight
        self.project_image = nn.Linear(self.image.width, dim)
        self.project_text = nn.Linear(self.text.width, dim)
        self.classifiers: LabelClassifiers | None = None  # once the labels are known
        self.contrast = InfoNCE(temperature, learn_temperature=False)

    def setup(self, stage: str) -> None:
        labels = self.training_labels()
        super().setup(stage)
        if self.classifiers is None:
            self.classifiers = LabelClassifiers(label_graph(labels), self.dim, self.layers)

    def encode_image(self, images: Inputs) -> Embeddings:
        return Embeddings(self.project_image(self.image(images).pooled))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return Embeddings(self.project_text(self.text(tokens).pooled))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        labels = gather_rows(self, batch["labels"])
        across = positives.float()
        within = across.clone().fill_diagonal_(0.0)
        # The contrast is the mean of two directions, which the paper adds up; within a modality they are the same.
        contrast = 2 * self.contrast(self.score(image, text), across) + self.intra_weight * (
            self.contrast(self.score(image, image), within) + self.contrast(self.score(text, text), within)
        )
        assert self.classifiers is not None
        classifiers = Embeddings(self.classifiers())
        wrong = sum(label_error(self.score(items, classifiers), labels) for items in (image, text))
        return contrast + self.label_weight * wrong
