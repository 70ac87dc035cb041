"""DCMFG, the dynamic cross-modal feature graph: edges of mutual context, weighted by attention, carry training labels.

The graph convolution is one step of label propagation: a node of an item receives the labels of the bank's nodes that
it is connected with. A node of a whole item receives all labels, a label's node its own label.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from itmbench.methods.mcr_dgn.bank import Contexts, Nodes
from itmbench.methods.mcr_dgn.context import Edges

Kinds = Literal["all", "items", "labels", "none"]
Keep = Callable[[Tensor], Tensor]
"""Attention of edges `[B, k]` -> mask of the edges to keep, bool `[B, k]`."""

TEMPERATURE = 0.1
"""Temperature of the cosines in the attention."""


def attention(edges: Edges, keep: Keep | None = None) -> Tensor:
    """The share of each edge in the messages of its node, float32 `[B, k]`.

    A softmax of cosine / 0.1 in which each edge counts by its weight, times the largest weight among them: the shares
    of a node sum to 1, or to less where all of its edges fade.
    """
    weight = edges.weight
    counts = weight * ((edges.cosine - 1) / TEMPERATURE).exp()
    if keep is not None:
        kept = keep(_shares(counts))
        counts, weight = counts * kept, weight * kept
    return _shares(counts) * weight.amax(1, keepdim=True)


def _shares(counts: Tensor) -> Tensor:
    """Counts `[B, k]` relative to their sums; 0 where all are 0."""
    return counts / counts.sum(1, keepdim=True).clamp(min=torch.finfo(counts.dtype).tiny)


def messages(edges: Edges, labels: Tensor, keep: Keep | None = None) -> Tensor:
    """mean y + sum_j a_j (y_j - mean y) for labels y of the bank `[P, C]`: `[B, C]`, in [0, 1]."""
    mean = labels.mean(0)
    return mean + torch.einsum("bk,bkc->bc", attention(edges, keep), (labels - mean)[edges.source])


def propagate(
    nodes: Nodes, contexts: Contexts, labels: Tensor, kinds: Kinds = "all", keep: Keep | None = None
) -> Tensor:
    """What the labels receive from the bank for each item, `[B, C]` in [0, 1]: the mean over the kinds of nodes.

    Args:
        nodes: of the items.
        contexts: the bank's nodes of the items' modality.
        labels: of the bank's pairs `[P, C]`.
        kinds: nodes that receive messages; not "none".
        keep: selects edges; the attention is then shared among the rest.
    """
    hidden = contexts.item.copies(nodes.item)  # a training item in a gallery must not receive its own labels
    received = []
    if kinds != "labels":
        received.append(messages(contexts.item.attach(nodes.item, hidden), labels, keep))
    if kinds != "items":
        columns = [
            messages(context.attach(vectors, hidden), labels[:, label : label + 1], keep)
            for label, (context, vectors) in enumerate(zip(contexts.labels, nodes.labels.unbind(1), strict=True))
        ]
        received.append(torch.cat(columns, dim=1))
    return torch.stack(received).mean(0)
