"""MCR-DGN: mutual context finds the edges, a dynamic graph passes messages, and test items are encoded alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
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
from itmbench.methods.votes import joined

Inference = Literal["auto", "anchor", "encoder", "transductive"]


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
        inference: how a test item is encoded. "anchor": attached to the bank; "encoder": without the graph; "auto": the
            better of these two on validation; "transductive": attached to its batch, a diagnostic that is not ranked.
        label_votes: candidate weights of the label votes beside the item's vector; validation chooses one.
        bank_size: capacity of the bank, in nodes.
        temperature: initial temperature of the contrasts, each of which learns its own. Pairs without labels need a
            lower one (0.07).
        contrast_weight: weight of the contrast by shared labels, or by pairs if there are no labels.
        intra_weight: weight, within the contrast, of the contrasts among images and among texts.
        likelihood_weight: weight of the likelihood of what belongs together.
        label_weight: weight of the label prediction, if there are labels.
        graph_weight: weight of these losses for the embeddings with the graph; those without it have weight 1.
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
        label_votes: Sequence[float] = (0.0, 0.2, 0.4, 0.7),
        bank_size: int = 16384,
        temperature: float = 0.22,
        contrast_weight: float = 1.0,
        intra_weight: float = 0.14,
        likelihood_weight: float = 0.5,
        label_weight: float = 2.0,
        graph_weight: float = 1.0,
        consistency_weight: float = 0.0,
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
        if not label_votes or min(label_votes) < 0:
            raise InputError(f"MCRDGN: label_votes is {list(label_votes)}; give one or more, each at least 0")
        self.label_votes = list(label_votes)
        weights = contrast_weight, intra_weight, likelihood_weight, label_weight
        self.plain_losses = Losses(dim, temperature, weights)
        self.end_to_end = end_to_end
        self.graph_weight, self.consistency_weight = graph_weight, consistency_weight
        if layers:
            self.graph_losses = Losses(dim, temperature, weights)
            self.graph = DynamicGraph(dim, layers, attention, edges, update, step)
            keys = (self.image.width, self.text.width) if update == "static" else None
            self.bank = Bank(bank_size // (2 * (1 + concepts)), 1 + concepts, dim, keys)
        self.layers, self.static = layers, update == "static"
        self.register_buffer("uses_graph", torch.tensor(True))
        self.register_buffer("label_vote", torch.tensor(float(label_votes[0])))
        self._filled_at = -1

    # --- what a method is -------------------------------------------------------------------------------------------

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        labels = gather_rows(self, batch["labels"]) if "labels" in batch else None
        loss = self.plain_losses(image.pooled, text.pooled, positives, labels)
        if not self.layers:
            return loss
        related = self._related(image, text, gather_rows(self, batch["image_index"]))
        graph_loss = self.graph_losses(related[0].pooled, related[1].pooled, positives, labels)
        # The encoders follow the graph, which has more information, and never the reverse.
        distances = [
            1 - (plain.pooled * graph.pooled.detach()).sum(1).mean()
            for plain, graph in zip((image, text), related, strict=True)
        ]
        return loss + self.graph_weight * graph_loss + self.consistency_weight * (distances[0] + distances[1])

    def _related(self, image: Embeddings, text: Embeddings, item: Tensor) -> tuple[Embeddings, Embeddings]:
        """Embed a training batch with the graph; ``item`` is the image of each pair."""
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
        return Embeddings(read_out(states[0])), Embeddings(read_out(states[1]))

    # --- an item at test --------------------------------------------------------------------------------------------

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        """Embed items from their nodes.

        In training, the plain vectors with the nodes as tokens. In the validation that chooses, everything that the
        candidates need. Otherwise the test embeddings.
        """
        nodes, raw = self.item_nodes[modality](items)
        plain = read_out(nodes)
        if self.training:
            tokens = torch.cat([nodes, raw], dim=2) if self.static else nodes
            return Embeddings(plain, tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool))
        if self.choosing and self.layers:
            return Embeddings(torch.cat([plain, *self.with_graph(modality, nodes, raw)], dim=1))
        if not self.graph_at_test:
            return Embeddings(plain)
        return Embeddings(joined(*self.with_graph(modality, nodes, raw), self.label_vote))

    @property
    def graph_at_test(self) -> bool:
        """Whether test embeddings use the graph."""
        return self.layers > 0 and self.inference != "encoder" and (self.inference != "auto" or bool(self.uses_graph))

    @property
    def choices(self) -> dict[str, Any]:
        """Whether test embeddings use the graph, and the weight of the label votes in them."""
        vote = round(float(self.label_vote), 6) if self.graph_at_test else 0.0
        return {"graph_at_test": self.graph_at_test, "label_vote": vote}

    def with_graph(
        self, modality: Modality, nodes: Tensor, raw: Tensor, keep: Keep | None = None
    ) -> tuple[Tensor, Tensor]:
        """Vectors of test items with the graph `[B, D]` and their label votes `[B, C]`.

        Without a graph or with an empty bank, these are the plain vectors. The votes are those of the first layer,
        whose edges the encoder's states find: `[B, 0]` without labels, and 0 for an item without edges.
        """
        layers = self.propagate(modality, nodes, raw, keep)
        vectors = read_out(layers[-1].states.view_as(nodes)) if layers else read_out(nodes)
        labels = self.bank.labels if self.layers else None
        if labels is None:
            return vectors, vectors.new_zeros(len(nodes), 0)
        if not layers or self.inference == "transductive":  # the labels of other test items must stay unknown
            return vectors, vectors.new_zeros(len(nodes), labels.shape[1])
        return vectors, votes(layers[0], labels[: len(self.bank)], nodes.shape[1], len(nodes))

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
        if corpus.labels is not None:
            self._build_label_parts(corpus.labels.shape[1])

    def adapt_to_state(self, state: Mapping[str, Tensor]) -> None:
        classifier = state.get("plain_losses.classifier.weight")
        if classifier is not None:
            self._build_label_parts(len(classifier))

    def _build_label_parts(self, labels: int) -> None:
        for losses in (self.plain_losses, *([self.graph_losses] if self.layers else [])):
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
        """Whether to use the graph, and the weight of its label votes; without a graph, those of `Matcher`."""
        if self.votes is not None:
            return super().candidates()
        if not self.layers or self.inference in ("encoder", "transductive"):
            return [(self.inference == "transductive", 0.0)]
        graph = [(True, vote) for vote in (self.label_votes if self.bank.labels is not None else [0.0])]
        return [*([(False, 0.0)] if self.inference == "auto" else []), *graph]

    def choose(self, candidate: Any) -> None:
        if self.votes is not None:
            return super().choose(candidate)
        self.uses_graph.fill_(candidate[0])
        self.label_vote.fill_(candidate[1])

    def as_candidate(self, items: Embeddings, candidate: Any) -> Embeddings:
        if self.votes is not None:
            return super().as_candidate(items, candidate)
        graph, vote = candidate
        plain, vectors, label_votes = items.pooled.tensor_split([self.dim, 2 * self.dim], dim=1)
        return Embeddings(joined(vectors, label_votes, vote) if graph else plain)

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
        self.bank.fill(
            torch.from_numpy(images).to(self.device),
            image,
            text,
            (image_keys, text_keys) if self.static else None,
            None if labels is None else torch.from_numpy(labels[images]),
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

    def forward(self, image: Tensor, text: Tensor, positives: Tensor, labels: Tensor | None) -> Tensor:
        """Return the loss, a scalar, of unit vectors `[B, D]`, positives (bool `[B, B]`), labels `[B, C]` or None."""
        contrast, intra, likelihood, label = self.weights
        across = positives.float()
        within = across.clone().fill_diagonal_(0.0)
        scores = image @ text.T
        loss = contrast * self.contrast(scores, across) + likelihood * self.likelihood(scores, positives)
        for side in (image, text):
            loss = loss + contrast * intra * self.contrast(side @ side.T, within)
        if labels is not None:
            assert self.classifier is not None
            # Unit vectors are too short for a classifier that starts with small weights.
            logits = self.classifier((torch.cat([image, text]) * self.dim**0.5).to(self.classifier.weight.dtype))
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
