"""MCR-DGN: mutual context finds the edges, a dynamic graph passes messages, and test items are encoded alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout, normalize
from torch.nn.utils import clip_grad_norm_

from itmbench.data.corpus import Corpus
from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Batch, Matcher, Modality
from itmbench.methods.distributed import gather_rows
from itmbench.methods.losses import InfoNCE, PairLikelihood
from itmbench.methods.mcr_dgn.bank import Bank, bank_rows, pair_context
from itmbench.methods.mcr_dgn.context import Blocks, Context, Nodes, Rule, own_images
from itmbench.methods.mcr_dgn.graph import Attention, DynamicGraph, Keep, Propagation, Update, votes
from itmbench.methods.mcr_dgn.labels import LabelNodes
from itmbench.methods.relevance import mixed, relevance_vectors

Inference = Literal["auto", "anchor", "votes", "encoder", "transductive"]


class MCRDGN(Matcher):
    """Mutual contextual relation-guided dynamic graph network, implemented after its published description.

    Args:
        dim: D, size of the common space.
        concepts: concept nodes per item, beside its global node.
        k: nearest nodes per modality that form the context of a node.
        edges: "mutual": each is in the other's context; "union": one of them is.
        blocks: edges within and across the modalities, or of one kind only.
        update: when edges are found; see `itmbench.methods.mcr_dgn.graph.DynamicGraph`.
        attention: how edges are weighted; see `itmbench.methods.mcr_dgn.graph.GraphLayer`.
        layers: layers of the graph; 0 trains and tests without a graph.
        step: initial step of a layer within a modality.
        context: what training items attach to: the bank of the last epoch (the batch while the bank is empty), or the
            other items of their batch.
        end_to_end: let the losses with the graph train the encoders, too, not the graph alone.
        inference: how a test item is encoded. "anchor": attached to the bank; "votes": with the label votes of the
            nodes that it would attach to, but without their messages; "encoder": without the graph; "auto": the best of
            these on validation; "transductive": attached to its batch, a diagnostic that is not ranked.
        label_votes: candidate weights of the label votes in the label probabilities; validation chooses one.
        bank_size: capacity of the bank, in nodes.
        temperature: initial temperature of the contrasts, each of which learns its own. Pairs without labels need a
            lower one (0.07).
        contrast_weight: weight of the contrast by shared labels, or by pairs if there are no labels.
        intra_weight: weight, within the contrast, of the contrasts among images and among texts.
        likelihood_weight: weight of the likelihood of what belongs together.
        label_weight: weight of the label prediction, if there are labels. 0 leaves out label nodes and votes.
        control: what the graph is compared with: "random_edges", or "shuffled_labels" of the bank's pairs.
        dropout: probability, in training, of dropping a channel of an item's pooled vector or of all its tokens.
        graph_weight: weight of these losses for the embeddings with the graph; those without it have weight 1. With 0
            (and no consistency) training leaves the graph out, which still gives votes.
        consistency_weight: weight of the distance between the embeddings without and with the graph, which trains the
            encoders only.
        **kwargs: arguments of ``Matcher``.

    Raises:
        InputError: an option leaves no graph: ``k``, ``bank_size`` or ``label_votes``.
    """

    uses_graph: Tensor
    label_vote: Tensor
    switchable = Matcher.switchable | {"inference", "label_votes"}

    def __init__(
        self,
        dim: int = 256,
        concepts: int = 2,
        k: int = 16,
        edges: Rule = "mutual",
        blocks: Blocks = "all",
        update: Update = "layer",
        attention: Attention = "gatv2",
        layers: int = 2,
        step: float = 0.3,
        context: Literal["bank", "batch"] = "bank",
        end_to_end: bool = False,
        inference: Inference = "auto",
        label_votes: Sequence[float] = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6),
        bank_size: int = 16384,
        temperature: float = 0.22,
        contrast_weight: float = 0.3,
        intra_weight: float = 0.14,
        likelihood_weight: float = 0.15,
        label_weight: float = 4.0,
        graph_weight: float = 1.0,
        consistency_weight: float = 0.0,
        control: Literal["random_edges", "shuffled_labels"] | None = None,
        dropout: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.votes is not None and (layers or inference != "auto"):
            raise InputError("MCRDGN: its graph has label votes of its own; remove votes, or set layers to 0")
        if k < 1:
            raise InputError(f"MCRDGN: k {k} leaves every node without neighbours; give 1 or more, or set layers to 0")
        if bank_size < 2 * (1 + concepts):
            raise InputError(f"MCRDGN: bank_size {bank_size} cannot hold a pair; give {2 * (1 + concepts)} or more")
        self.dim, self.k, self.blocks, self.context, self.inference = dim, k, blocks, context, inference
        self.item_nodes = self.per_modality(lambda width: ItemNodes(width, dim, concepts))
        if not label_votes or min(label_votes) < 0 or max(label_votes) > 1:
            raise InputError(f"MCRDGN: label_votes is {list(label_votes)}; give one or more, each from 0 to 1")
        self.label_votes, self.dropout, self.control = list(label_votes), dropout, control
        self.label_nodes: nn.ModuleDict | None = None  # built once the number of labels is known
        weights = contrast_weight, intra_weight, likelihood_weight, label_weight
        self.plain_losses = Losses(dim, temperature, weights)
        self.end_to_end = end_to_end
        self.graph_weight, self.consistency_weight = graph_weight, consistency_weight
        if layers:
            self.graph_losses = Losses(dim, temperature, weights)
            self.graph = DynamicGraph(dim, layers, attention, edges, update, step, control == "random_edges")
            keys = (self.image.width, self.text.width) if update == "static" else None
            self.bank = Bank(bank_size // (2 * (1 + concepts)), 1 + concepts, dim, keys)
        self.layers, self.static = layers, update == "static"
        self.trains_graph = layers > 0 and bool(graph_weight or consistency_weight)
        if layers and not self.trains_graph:
            for part in (self.graph, self.graph_losses):  # every trained weight must get a gradient
                part.requires_grad_(False)
        self.register_buffer("uses_graph", torch.tensor(True))
        self.register_buffer("label_vote", torch.tensor(float(label_votes[0])))
        self._filled_at = -1

    # --- what a method is -------------------------------------------------------------------------------------------

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        labels = gather_rows(self, batch["labels"]) if "labels" in batch else None
        vectors, read = zip(*(items.pooled.tensor_split([self.dim], dim=1) for items in (image, text)), strict=True)
        loss = self.plain_losses(*vectors, positives, labels, read)
        if not self.trains_graph:
            return loss
        related = self._related(image, text, gather_rows(self, batch["image_index"]))
        if not self.end_to_end:
            read = tuple(part.detach() for part in read)
        graph_loss = self.graph_losses(related[0], related[1], positives, labels, read)
        # The encoders follow the graph, which has more information, and never the reverse.
        distances = [1 - (plain * graph.detach()).sum(1).mean() for plain, graph in zip(vectors, related, strict=True)]
        return loss + self.graph_weight * graph_loss + self.consistency_weight * (distances[0] + distances[1])

    def _related(self, image: Embeddings, text: Embeddings, item: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `[B, D]` of a training batch with the graph; ``item`` is the image of each pair."""
        assert image.tokens is not None and text.tokens is not None
        nodes = image.tokens[..., : self.dim], text.tokens[..., : self.dim]
        if not self.end_to_end:
            nodes = nodes[0].detach(), nodes[1].detach()
        keys = (image.tokens[..., self.dim :], text.tokens[..., self.dim :]) if self.static else None
        context = self.bank.context(self.k, self.blocks) if self.context == "bank" else None
        if context is None:
            context = pair_context(item, *nodes, self.k, self.blocks, keys)
        excluded = own_images(item.repeat_interleave(nodes[0].shape[1]).repeat(2))
        image_queries, text_queries = nodes if keys is None else keys
        queries = image_queries.flatten(0, 1), text_queries.flatten(0, 1)
        layers = self.graph(torch.cat(nodes).flatten(0, 1), context, excluded, queries)
        states = layers[-1].states.view(2, *nodes[0].shape)
        return read_out(states[0]), read_out(states[1])

    # --- an item at test --------------------------------------------------------------------------------------------

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        """Embed items from their nodes.

        In training, the plain vectors and what the labels read, with the nodes as tokens. In the validation that
        chooses, everything that the candidates need. Otherwise the test embeddings.
        """
        nodes, raw, read = self.nodes_of(self._dropped(items), modality)
        plain = read_out(nodes)
        if self.training:
            tokens = torch.cat([nodes, raw], dim=2) if self.static else nodes
            pooled = torch.cat([plain, read], dim=1)
            return Embeddings(pooled, tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool))
        if self.choosing and self.layers:
            with_graph, votes = self.with_graph(modality, nodes, raw, read)
            columns = [self._described(self.plain_losses, plain, read), with_graph, votes]
            return Embeddings(torch.cat([*columns, plain.new_full((len(plain), 1), float(modality == "text"))], dim=1))
        return Embeddings(self.embed_nodes(modality, nodes, raw, read))

    def embed_nodes(
        self, modality: Modality, nodes: Tensor, raw: Tensor, read: Tensor, keep: Keep | None = None
    ) -> Tensor:
        """Test embeddings of items by what was chosen; arguments as in ``with_graph``."""
        if not self.votes_at_test:
            return self._final(self._described(self.plain_losses, read_out(nodes), read), modality)
        described, votes = self.with_graph(modality, nodes, raw, read, keep)
        if not self.graph_at_test:
            described = self._described(self.plain_losses, read_out(nodes), read)
        return self._final(mixed(described, votes, self.label_vote), modality)

    def _described(self, losses: "Losses", vectors: Tensor, read: Tensor) -> Tensor:
        """Label probabilities `[B, C]` of items, or their vectors `[B, D]` without labels."""
        return vectors if self.label_nodes is None else losses.logits(vectors, read).float().sigmoid()

    def _final(self, described: Tensor, modality: Modality) -> Tensor:
        return described if self.label_nodes is None else relevance_vectors(described, modality)

    def nodes_of(self, items: Embeddings, modality: Modality) -> tuple[Tensor, Tensor, Tensor]:
        """What ``ItemNodes`` returns for items, and what the labels read from their tokens `[B, C]`; else `[B, 0]`."""
        nodes, raw = self.item_nodes[modality](items)
        read = nodes.new_zeros(len(nodes), 0) if self.label_nodes is None else self.label_nodes[modality](items)
        return nodes, raw, read

    def _dropped(self, items: Embeddings) -> Embeddings:
        if not self.training or not self.dropout:
            return items
        assert items.tokens is not None
        tokens = items.tokens * dropout(torch.ones_like(items.tokens[:, :1]), self.dropout)
        return Embeddings(dropout(items.pooled, self.dropout), tokens, items.mask)

    @property
    def graph_at_test(self) -> bool:
        """Whether test embeddings use the messages of the graph."""
        chosen = bool(self.uses_graph) if self.inference == "auto" else self.inference not in ("encoder", "votes")
        return self.layers > 0 and chosen

    @property
    def votes_at_test(self) -> bool:
        """Whether test items attach to the bank, for messages or for votes."""
        return self.layers > 0 and self.inference != "encoder" and (self.graph_at_test or bool(self.label_vote > 0))

    @property
    def choices(self) -> dict[str, Any]:
        """Whether test embeddings use the graph, and the weight of the label votes in them."""
        if self.votes is not None:
            return super().choices
        vote = round(float(self.label_vote), 6) if self.votes_at_test else 0.0
        return {"graph_at_test": self.graph_at_test, "label_vote": vote}

    def with_graph(
        self, modality: Modality, nodes: Tensor, raw: Tensor, read: Tensor, keep: Keep | None = None
    ) -> tuple[Tensor, Tensor]:
        """What test items are with the graph, and their label votes, both label probabilities `[B, C]`.

        Without labels these are vectors `[B, D]` and nothing, `[B, 0]`. Without a graph or with an empty bank, they are
        those of the encoder. The votes are those of the first layer, whose edges the encoder's states find; where
        edges are faint or missing, they are the mean labels of the bank.

        Args:
            modality: of the items.
            nodes: as returned by ``ItemNodes``.
            raw: as returned by ``ItemNodes``.
            read: what the labels read from the items' tokens `[B, C]`.
            keep: selects edges; see `DynamicGraph`.
        """
        layers = self.propagate(modality, nodes, raw, keep)
        vectors = read_out(layers[-1].states.view_as(nodes)) if layers else read_out(nodes)
        losses = self.graph_losses if layers and self.trains_graph else self.plain_losses
        described = self._described(losses, vectors, read)
        labels = self.bank.labels if self.layers else None
        if self.label_nodes is None or labels is None:
            return described, vectors.new_zeros(len(nodes), 0)
        if not layers or self.inference == "transductive":  # the labels of other test items must stay unknown
            return described, described
        return described, votes(layers[0], labels[: len(self.bank)], nodes.shape[1], len(nodes))

    def propagate(self, modality: Modality, nodes: Tensor, raw: Tensor, keep: Keep | None = None) -> list[Propagation]:
        """Run the graph at test on items of one modality; arguments as returned by ``ItemNodes``."""
        if not self.layers:
            return []
        states, keys = nodes.flatten(0, 1), (raw if self.static else nodes).flatten(0, 1)
        images = len(states) if modality == "image" else 0
        queries = keys[:images], keys[images:]
        if self.inference == "transductive":
            item = torch.arange(len(nodes), device=nodes.device).repeat_interleave(nodes.shape[1])
            context = Context(Nodes(states, item, images), self.k, self.blocks, (keys, keys))
            return self.graph(states, context, own_images(item), queries, keep)
        bank = self.bank.context(self.k, self.blocks)
        # The image of a test item is unknown, so an item that is in the bank is recognised by its vectors.
        return [] if bank is None else self.graph(states, bank, bank.recognised(queries), queries, keep)

    # --- Lightning --------------------------------------------------------------------------------------------------

    def adapt(self, corpus: Corpus) -> None:
        super().adapt(corpus)
        if corpus.labels is not None and self.plain_losses.weights[-1]:
            self._build_label_parts(corpus.labels.shape[1])

    def adapt_to_state(self, state: Mapping[str, Tensor]) -> None:
        classifier = state.get("plain_losses.classifier.weight")
        if classifier is not None:
            self._build_label_parts(len(classifier))

    def _build_label_parts(self, labels: int) -> None:
        if self.label_nodes is None:
            self.label_nodes = self.per_modality(lambda width: LabelNodes(width, labels))
        for losses in (self.plain_losses, *([self.graph_losses] if self.trains_graph else [])):
            losses.fit(labels)
        if self.layers:
            self.bank.hold_labels(labels)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the graph's gradients separately, so that the encoders train as if there were no graph."""
        if not (self.layers and gradient_clip_val) or self.end_to_end or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        graph = {id(weight) for part in (self.graph, self.graph_losses) for weight in part.parameters()}
        for in_graph in (True, False):
            clip_grad_norm_([p for p in self.parameters() if (id(p) in graph) == in_graph], gradient_clip_val)

    def candidates(self) -> Sequence[Any]:
        """Whether to use the graph's messages, and the weight of its label votes."""
        if self.votes is not None:
            return super().candidates()
        if not self.layers or self.inference in ("encoder", "transductive"):
            return [(self.inference == "transductive", 0.0)]
        weights = [0.0] if self.label_nodes is None else self.label_votes
        plain = weights if self.inference == "votes" else sorted({0.0, *weights})
        found = [(False, vote) for vote in plain] if self.inference in ("auto", "votes") else []
        return [*found, *((True, vote) for vote in weights if self.inference != "votes")]

    def choose(self, candidate: Any) -> None:
        if self.votes is not None:
            return super().choose(candidate)
        self.uses_graph.fill_(candidate[0])
        self.label_vote.fill_(candidate[1])

    def as_candidate(self, items: Embeddings, candidate: Any) -> Embeddings:
        if self.votes is not None:
            return super().as_candidate(items, candidate)
        graph, vote = candidate
        width = self.dim if self.label_nodes is None else self.bank.labels.shape[1]  # type: ignore[union-attr]
        plain, with_graph, votes, text = items.pooled.tensor_split([width, 2 * width, items.pooled.shape[1] - 1], dim=1)
        described = mixed(with_graph if graph else plain, votes, vote)
        return Embeddings(self._final(described, "text" if bool(text.any()) else "image"))

    def fill(self) -> None:
        """Encode the bank's training pairs."""
        super().fill()
        if not self.layers:
            return
        corpus = self.data.corpus
        images, texts = bank_rows(corpus, len(self.bank.item))

        def encode(modality: Modality) -> Callable[[Any], Embeddings]:
            def nodes(inputs: Any) -> Embeddings:
                encoder = self.image if modality == "image" else self.text
                states, keys = self.item_nodes[modality](encoder(inputs))
                return Embeddings(states.flatten(1), keys, keys.new_ones(keys.shape[:2], dtype=torch.bool))

            return nodes

        parts = self.encode_training(
            {"image": images, "text": texts}, {"image": encode("image"), "text": encode("text")}
        )
        image, text = (part.pooled.unflatten(1, (-1, self.dim)) for part in parts.values())
        image_keys, text_keys = parts["image"].tokens, parts["text"].tokens
        assert image_keys is not None and text_keys is not None
        labels = corpus.labels_trained_with
        of_pairs = images
        if self.control == "shuffled_labels":
            of_pairs = np.random.default_rng(0).permutation(images)
        self.bank.fill(
            torch.from_numpy(images).to(self.device),
            image,
            text,
            (image_keys, text_keys) if self.static else None,
            None if labels is None else torch.from_numpy(labels[of_pairs]),
        )


class Losses(nn.Module):
    """The losses of pair embeddings: a contrast, a likelihood and, with labels, label prediction.

    The weights are those of the contrast (soft InfoNCE) between images and texts, of the contrasts within a modality
    (times the first), of the likelihood, and of the binary cross-entropy of a linear label classifier.
    """

    def __init__(self, dim: int, temperature: float, weights: tuple[float, float, float, float]) -> None:
        super().__init__()
        self.dim, self.weights = dim, weights
        self.contrast = InfoNCE(temperature)
        self.likelihood = PairLikelihood(scale=5.0)
        self.classifier: nn.Linear | None = None

    def fit(self, labels: int) -> None:
        """Build the classifier, once the number of labels is known."""
        if self.classifier is None:
            self.classifier = nn.Linear(self.dim, labels)

    def logits(self, vectors: Tensor, read: Tensor) -> Tensor:
        """Label logits `[B, C]` of unit vectors `[B, D]` and of what the labels read from the tokens `[B, C]`."""
        assert self.classifier is not None
        # Unit vectors are too short for a classifier that starts with small weights.
        return self.classifier((vectors * self.dim**0.5).to(self.classifier.weight.dtype)) + read

    def forward(
        self, image: Tensor, text: Tensor, positives: Tensor, labels: Tensor | None, read: Sequence[Tensor]
    ) -> Tensor:
        """Return the loss, a scalar.

        Args:
            image: unit vectors `[B, D]`.
            text: unit vectors `[B, D]`.
            positives: bool `[B, B]`.
            labels: `[B, C]`, or None.
            read: what the labels read from the tokens of the images and of the texts `[B, C]` each.
        """
        contrast, intra, likelihood, label = self.weights
        across = positives.float()
        within = across.clone().fill_diagonal_(0.0)
        scores = image @ text.T
        loss = contrast * self.contrast(scores, across) + likelihood * self.likelihood(scores, positives)
        for side in (image, text):
            loss = loss + contrast * intra * self.contrast(side @ side.T, within)
        if labels is not None and self.classifier is not None:
            logits = torch.cat([self.logits(*side) for side in zip((image, text), read, strict=True)])
            loss = loss + label * binary_cross_entropy_with_logits(logits.float(), labels.float().repeat(2, 1))
        return loss


class ItemNodes(nn.Module):
    """Turn an encoder's items into nodes: a global node of the pooled vector, and concepts that queries attend to."""

    def __init__(self, width: int, dim: int, concepts: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(concepts, width) / width**0.5)
        self.key = nn.Linear(width, width)
        self.project, self.project_concept = nn.Linear(width, dim), nn.Linear(width, dim)

    def forward(self, items: Embeddings) -> tuple[Tensor, Tensor]:
        """Return the nodes `[B, R, D]` and their vectors before projection `[B, R, W]`, all of unit length."""
        assert items.tokens is not None and items.mask is not None
        logits = self.queries @ self.key(items.tokens).transpose(1, 2)  # [B, r, N]
        # An item without tokens attends to its padding, so that no weight is NaN; the result is then set to 0.
        real = items.mask.any(1).view(-1, 1, 1)
        weights = logits.float().masked_fill(~(items.mask.unsqueeze(1) | ~real), -torch.inf).softmax(2) * real
        concepts = weights.to(items.tokens.dtype) @ items.tokens
        nodes = torch.cat([self.project(items.pooled).unsqueeze(1), self.project_concept(concepts)], dim=1)
        raw = torch.cat([items.pooled.unsqueeze(1), concepts], dim=1)
        return normalize(nodes.float(), dim=2), normalize(raw.float(), dim=2)


def read_out(nodes: Tensor) -> Tensor:
    """Mean direction of the nodes `[B, R, D]` of each item, `[B, D]`."""
    return normalize(nodes.sum(1), dim=1)
