"""DCMFG, the dynamic cross-modal feature graph: attention weighs the edges, a graph convolution carries the messages.

Messages are those of the encoder's states in every layer. With states that layers have changed, an item would see its
own partner over two edges, through any neighbour that both have.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize, one_hot
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

from itmbench.methods.mcr_dgn.context import Context, Edges, Own, Rule, Vectors

Attention = Literal["gatv2", "uniform", "cosine"]
Update = Literal["layer", "step", "static"]

TEMPERATURE = 0.1
"""What the cosines of the edges are divided by in the attention."""
KINDS = 4
"""Kinds of edges: image or text to image or text."""


@dataclass(frozen=True)
class Propagation:
    """What a layer has done.

    Args:
        states: of the targets after it `[T, D]`.
        edges: that it used.
        attention: weight of each edge in what its target has seen, float32 `[E]`; those of a target add up to 1.
    """

    states: Tensor
    edges: Edges
    attention: Tensor


Keep = Callable[[Edges, Tensor], Tensor]
"""(edges, their attention `[E]`) -> which of them to keep, bool `[E]`."""


class DynamicGraph(nn.Module):
    """Layers that change targets by what they see in a context.

    Args:
        dim: D, size of the states.
        layers: how many; without any, states stay what they are.
        attention: as for ``GraphLayer``.
        rule: as for ``Context.attach``.
        update: find the edges before every layer by the states that the last has left ("layer"), once by the encoder's
            states ("step"), or once by what the encoder gives before any projection into the common space ("static").
        step: as for ``GraphLayer``.
    """

    def __init__(self, dim: int, layers: int, attention: Attention, rule: Rule, update: Update, step: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([GraphLayer(dim, attention, step) for _ in range(layers)])
        self.modality = nn.Parameter(0.02 * torch.randn(2, dim))
        self.rule, self.update = rule, update

    def forward(
        self, targets: Tensor, context: Context, own: Own, seen: Vectors, keep: Keep | None = None
    ) -> list[Propagation]:
        """What every layer has done.

        Args:
            targets: states of nodes that look at the context `[T, D]`, those of images first.
            context: nodes that are looked at.
            own: what targets must not see.
            seen: what the targets' first edges are found by: their states, or what the context is seen by.
            keep: edges that are left out of a layer, once their attention is known, share it among the others.
        """
        sources, images = context.nodes.vectors + self.modality[context.modality], len(seen[0])
        modality = self.modality[(torch.arange(len(targets), device=targets.device) >= images).long()]
        states, done = targets, list[Propagation]()
        for layer in cast(Iterable[GraphLayer], self.layers):
            if not done:
                found = context.attach(seen, own, self.rule)
            elif self.update == "layer":
                found = context.attach((states[:images], states[images:]), own, self.rule)
            edges = found
            if keep is not None:
                edges = edges[keep(edges, layer.share(edges, layer.weights(states + modality, sources, edges)))]
            weights = layer.weights(states + modality, sources, edges)
            states = layer(states, sources, edges, weights, images)
            done.append(Propagation(states, edges, layer.share(edges, weights)))
        return done


class GraphLayer(MessagePassing):
    """A step of relational graph convolution along weighted edges, from sources to targets.

    h_i' = unit(h_i + sum_r step_r W_r sum_j a_ij h_j): the convolution of Schlichtkrull et al. (ESWC 2018, eq. 2) over
    two relations of a target, to images and to texts, with attention in place of its normalisation. W_r begins as the
    identity; the step begins small within a modality and at 0 across, because there what lies behind the gap between
    the modalities is a direction that all nodes share. A target without edges stays where it is.

    The logit of an edge is c_ij / 0.1 + a' LeakyReLU(A h_i + B h_j + C e_ij), with the cosine c_ij and its features
    e_ij: cosine, Jaccard overlap, kind. The second part is GATv2 (Brody et al., ICLR 2022, eq. 7) and begins at 0. The
    softmax goes over the edges of a target to one modality, so that neither modality starves the other.

    Args:
        dim: D, size of the states.
        attention: with both parts of the logit, with its cosine alone, or the same for all edges of a relation.
        step: within a modality, at the start.
    """

    def __init__(self, dim: int, attention: Attention, step: float) -> None:
        super().__init__(aggr="add", flow="source_to_target", node_dim=0)
        self.attention = attention
        self.out = nn.Parameter(torch.eye(dim).repeat(KINDS, 1, 1))
        self.step = nn.Parameter(step * torch.eye(2).flatten())
        if attention == "gatv2":
            self.of_target, self.of_source = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
            self.of_edge, self.score = nn.Linear(2 + KINDS, dim, bias=False), nn.Linear(dim, 1, bias=False)
            nn.init.zeros_(self.score.weight)

    def weights(self, targets: Tensor, sources: Tensor, edges: Edges) -> Tensor:
        """Attention float32 `[E]` of targets `[T, D]` to sources `[N, D]`; that to one modality adds up to 1."""
        logits = torch.zeros_like(edges.cosine) if self.attention == "uniform" else edges.cosine / TEMPERATURE
        if self.attention == "gatv2":
            # A context has many more nodes than those that are looked at.
            used, source = edges.source.unique(return_inverse=True)
            features = torch.stack([edges.cosine, edges.jaccard], dim=1)
            features = torch.cat([features, one_hot(edges.kind, KINDS)], dim=1)
            kind = self.of_edge.weight.dtype
            hidden = self.of_target(targets.to(kind))[edges.target] + self.of_source(sources[used].to(kind))[source]
            logits = logits + self.score(leaky_relu(hidden + self.of_edge(features.to(kind)), 0.2)).squeeze(1).float()
        return softmax(logits, _relation(edges), num_nodes=2 * len(targets))

    def forward(self, targets: Tensor, sources: Tensor, edges: Edges, weights: Tensor, images: int) -> Tensor:
        """New states `[T, D]` of the targets, the first of which are nodes of images."""
        seen = self.propagate(
            torch.stack([edges.source, _relation(edges)]),
            x=(sources, None),
            weight=weights,
            size=(len(sources), 2 * len(targets)),
        ).view(len(targets), 2, -1)
        # W is linear: it is the same before and after the sum, and there are fewer targets than edges.
        change = (self.step.view(KINDS, 1, 1) * self.out).unflatten(0, (2, 2)).to(seen.dtype)
        halves = seen[:images], seen[images:]
        moved = [torch.einsum("tsd,sed->te", part, of) for part, of in zip(halves, change, strict=True)]
        return normalize(targets + torch.cat(moved), dim=1)

    def share(self, edges: Edges, weights: Tensor) -> Tensor:
        """Each edge's share `[E]` of what its target has seen: its attention, times the size of its relation's step."""
        size = weights * self.step.detach().abs().clamp(min=1e-6)[edges.kind]
        total = size.new_zeros(int(edges.target.max()) + 1 if len(edges) else 0).index_add(0, edges.target, size)
        return size / total[edges.target]

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        """What goes along the edges `[E, D]`."""
        return weight.unsqueeze(1) * x_j


def _relation(edges: Edges) -> Tensor:
    """The relation that every edge belongs to, int64 `[E]`: 2 * target + modality of the source."""
    return 2 * edges.target + edges.kind % 2


def votes(step: Propagation, labels: Tensor, nodes: int, items: int) -> Tensor:
    """What the training pairs that items look at are labelled with, beyond what is common, of length 1 `[B, C]`.

    v = unit(sum_e a_e (y_e - mean y)), over the edges of all nodes of an item, with their attention; 0 without edges.

    Args:
        step: what a layer has done; the nodes that are looked at are those of the pairs, images first.
        labels: of these pairs `[P, C]`.
        nodes: R, of an item, on either side.
        items: B, that look.
    """
    pair = step.edges.source % (len(labels) * nodes) // nodes
    seen = step.attention.unsqueeze(1) * (labels - labels.mean(0))[pair]
    return normalize(seen.new_zeros(items, labels.shape[1]).index_add(0, step.edges.target // nodes, seen), dim=1)
