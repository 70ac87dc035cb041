"""DCMFG, the dynamic cross-modal feature graph: attention weighs the edges, a graph convolution carries the messages.

In every layer the messages are the encoder's states. If they were the updated states, an item would see its own partner
in two steps, through any neighbour that both have.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize, one_hot
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

from itmbench.methods.mcr_dgn.context import Context, Edges, Excluded, Rule, Vectors

Attention = Literal["gatv2", "uniform", "cosine"]
Update = Literal["layer", "step", "static"]

TEMPERATURE = 0.1
"""Temperature of the edge cosines in the attention."""
KINDS = 4
"""Kinds of edges: target modality times source modality."""


@dataclass(frozen=True)
class Propagation:
    """The result of one layer.

    Args:
        states: states of the targets after the layer `[T, D]`.
        edges: the edges it used.
        attention: share of each edge in its target's incoming messages, float32 `[E]`. The shares of a target sum to 1,
            or to less where edges fade or are missing.
    """

    states: Tensor
    edges: Edges
    attention: Tensor


Keep = Callable[[Edges, Tensor], Tensor]
"""(edges, their attention `[E]`) -> mask of the edges to keep, bool `[E]`."""


class DynamicGraph(nn.Module):
    """Layers that update targets from the nodes of a context.

    ``update`` says when to find the edges: before every layer, by the current states ("layer"); once, by the encoder's
    states ("step"); or once, by the encoder's output before its projection into the common space ("static").
    ``random_edges`` is a control: every edge leads to a node drawn at random instead.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        attention: Attention,
        rule: Rule,
        update: Update,
        step: float,
        random_edges: bool = False,
    ) -> None:
        super().__init__()
        self.random_edges = random_edges
        self.layers = nn.ModuleList([GraphLayer(dim, attention, step) for _ in range(layers)])
        self.modality = nn.Parameter(0.02 * torch.randn(2, dim))
        self.rule, self.update = rule, update

    def forward(
        self, targets: Tensor, context: Context, excluded: Excluded, queries: Vectors, keep: Keep | None = None
    ) -> list[Propagation]:
        """Run all layers.

        Args:
            targets: states of the target nodes `[T, D]`, images first.
            context: the nodes that targets attach to.
            excluded: nodes that targets must not see.
            queries: vectors by which the targets' first edges are found; comparable with ``context.keys``.
            keep: selects the edges of each layer by their attention; the attention is then recomputed over the rest.
        """
        sources, images = context.nodes.vectors + self.modality[context.modality], len(queries[0])
        modality = self.modality[(torch.arange(len(targets), device=targets.device) >= images).long()]
        states, results = targets, list[Propagation]()
        for layer in cast(Iterable[GraphLayer], self.layers):
            if not results:
                all_edges = context.attach(queries, excluded, self.rule)
            elif self.update == "layer":
                all_edges = context.attach((states[:images], states[images:]), excluded, self.rule)
            edges = scrambled(all_edges, context, excluded) if self.random_edges else all_edges
            if keep is not None:
                edges = edges[keep(edges, layer.share(edges, layer.weights(states + modality, sources, edges)))]
            weights = layer.weights(states + modality, sources, edges)
            states = layer(states, sources, edges, weights, images)
            results.append(Propagation(states, edges, layer.share(edges, weights)))
        return results


class GraphLayer(MessagePassing):
    """One step of relational graph convolution along weighted edges, from sources to targets.

    h_i' = unit(h_i + sum_r step_r W_r sum_j a_ij h_j): R-GCN (Schlichtkrull et al., ESWC 2018, eq. 2) over the two
    relations of a target, to images and to texts, with attention in place of its normalisation. W_r starts as the
    identity. The step starts small within a modality and at 0 across, because the direction across the modality gap is
    common to all nodes. A target without edges keeps its state.

    The logit of an edge is c_ij / 0.1 + a' LeakyReLU(A h_i + B h_j + C e_ij), where c_ij is the cosine and e_ij holds
    the edge features: cosine, Jaccard overlap, kind. The second term is GATv2 (Brody et al., ICLR 2022, eq. 7) and
    starts at 0. The softmax runs over a target's edges to one modality, so neither modality crowds out the other, and
    counts each edge by its weight. The whole is multiplied by the largest weight among them, so that the message fades
    with the last edge.
    ``attention`` "gatv2" uses both terms of the logit, "cosine" the first one, "uniform" neither.
    """

    def __init__(self, dim: int, attention: Attention, step: float) -> None:
        super().__init__(aggr="add", flow="source_to_target", node_dim=0)
        self.attention = attention
        self.out = nn.Parameter(torch.eye(dim).repeat(KINDS, 1, 1))
        self.step = nn.Parameter(step * torch.eye(2).flatten())
        if attention == "gatv2":
            self.target_map, self.source_map = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
            self.edge_map, self.score = nn.Linear(2 + KINDS, dim, bias=False), nn.Linear(dim, 1, bias=False)
            nn.init.zeros_(self.score.weight)

    def weights(self, targets: Tensor, sources: Tensor, edges: Edges) -> Tensor:
        """Attention, float32 `[E]`, of targets `[T, D]` to sources `[N, D]`; its sum per target and modality is the
        largest weight of an edge."""
        logits = torch.zeros_like(edges.cosine) if self.attention == "uniform" else edges.cosine / TEMPERATURE
        if self.attention == "gatv2":
            # Few nodes of a context have edges.
            used, source = edges.source.unique(return_inverse=True)
            features = torch.stack([edges.cosine, edges.jaccard], dim=1)
            features = torch.cat([features, one_hot(edges.kind, KINDS)], dim=1)
            dtype = self.edge_map.weight.dtype
            hidden = self.target_map(targets.to(dtype))[edges.target] + self.source_map(sources[used].to(dtype))[source]
            logits = logits + self.score(leaky_relu(hidden + self.edge_map(features.to(dtype)), 0.2)).squeeze(1).float()
        relation = _relation(edges)
        strongest = edges.weight.new_zeros(2 * len(targets)).scatter_reduce(0, relation, edges.weight, "amax")
        return softmax(logits + edges.weight.log(), relation, num_nodes=2 * len(targets)) * strongest[relation]

    def forward(self, targets: Tensor, sources: Tensor, edges: Edges, weights: Tensor, images: int) -> Tensor:
        """New states of the targets `[T, D]`, the first ``images`` of which are image nodes."""
        messages = self.propagate(
            torch.stack([edges.source, _relation(edges)]),
            x=(sources, None),
            weight=weights,
            size=(len(sources), 2 * len(targets)),
        ).view(len(targets), 2, -1)
        # W is linear, so it can be applied after the sum; there are fewer targets than edges.
        change = (self.step.view(KINDS, 1, 1) * self.out).unflatten(0, (2, 2)).to(messages.dtype)
        halves = messages[:images], messages[images:]
        moves = [torch.einsum("tsd,sed->te", part, matrix) for part, matrix in zip(halves, change, strict=True)]
        return normalize(targets + torch.cat(moves), dim=1)

    def share(self, edges: Edges, weights: Tensor) -> Tensor:
        """Each edge's share `[E]` of its target's messages: its attention times the relative size of its step."""
        steps = self.step.detach().abs().clamp(min=1e-6).view(2, 2)
        return weights * (steps / steps.sum(1, keepdim=True)).flatten()[edges.kind]

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        """Messages along the edges `[E, D]`."""
        return weight.unsqueeze(1) * x_j


def scrambled(edges: Edges, context: Context, excluded: Excluded) -> Edges:
    """The same edges from other sources, by a fixed random permutation within each modality; none is excluded."""
    images, count = context.nodes.images, len(context.nodes)
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randperm(size, generator=generator) for size in (images, count - images))
    source = torch.cat([image, images + text]).to(edges.source.device)[edges.source]
    edges = replace(edges, source=source)
    if excluded.share is None:  # one image for each target
        edges = edges[context.nodes.item[source] != excluded.image[edges.target]]
    return edges


def _relation(edges: Edges) -> Tensor:
    """The relation of each edge, int64 `[E]`: 2 * target + modality of the source."""
    return 2 * edges.target + edges.kind % 2


def votes(step: Propagation, labels: Tensor, nodes: int, items: int) -> Tensor:
    """Label votes `[B, C]`, in [0, 1], of the training pairs that items attach to.

    mean y + sum_e a_e (y_e - mean y), averaged over an item's nodes, over the edges e of a node with attention a_e: the
    attention that is missing, because edges fade, goes to the mean label. The sources of the layer are the nodes of
    the pairs with these labels `[P, C]`, images first; all have as many nodes.
    """
    pair = step.edges.source % (len(labels) * nodes) // nodes
    mean = labels.mean(0)
    weighted = step.attention.unsqueeze(1) * (labels - mean)[pair] / nodes
    return mean + weighted.new_zeros(items, labels.shape[1]).index_add(0, step.edges.target // nodes, weighted)
