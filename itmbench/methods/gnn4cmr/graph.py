"""The graph of the labels: which occur together, and the classifiers that a graph network makes of that."""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch_geometric.nn import GCNConv


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
