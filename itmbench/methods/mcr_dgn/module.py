"""MCR-DGN: mutual context decides who is connected, a dynamic graph passes it on, an item is tested alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
from torch.nn.utils import clip_grad_norm_

from itmbench.data.corpus import Corpus
from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.evaluation.protocol import Evaluation
from itmbench.methods.base import Batch, Matcher, Tables
from itmbench.methods.distributed import gather_rows
from itmbench.methods.losses import InfoNCE, PairLikelihood
from itmbench.methods.mcr_dgn.bank import Bank, bank_rows, pair_context
from itmbench.methods.mcr_dgn.context import Blocks, Context, Nodes, Rule, own_images
from itmbench.methods.mcr_dgn.graph import Attention, DynamicGraph, Keep, Propagation, Update, votes

Inference = Literal["auto", "anchor", "encoder", "transductive"]

_ENCODED = 64
"""Training pairs that are encoded at a time for the bank."""


class MCRDGN(Matcher):
    """Mutual contextual relation-guided dynamic graph network, after its published description.

    Args:
        dim: D, size of the common space.
        concepts: concept nodes of an item, beside its global node.
        k: nearest nodes of each modality that make the context of a node.
        edges: "mutual": both are in the other's context; "union": one of them is.
        blocks: edges within and across the modalities, or of one kind alone.
        update: when edges are found; see `itmbench.methods.mcr_dgn.graph.DynamicGraph`.
        attention: what weighs the edges; see `itmbench.methods.mcr_dgn.graph.GraphLayer`.
        layers: of the graph; 0 trains and tests without one.
        step: how far a layer moves a node towards what it sees of its own modality, at the start.
        context: what training items attach to: the bank of the last epoch (the batch while it is empty), or the other
            items of their batch.
        end_to_end: the losses of the embeddings with the graph train the encoders too, not the graph alone.
        inference: how an item is encoded at test. "anchor": attached alone to the bank; "encoder": without the graph;
            "auto": the better of these two on validation; "transductive": attached to the batch that it comes in, a
            diagnostic that is not ranked.
        label_votes: with anchors, how much the labels of the training pairs that an item looks at may count beside what
            it looks like; the best of these on validation is used.
        bank_size: most nodes that the bank holds.
        temperature: of the contrasts, at the start; each is learned. Pairs without labels want a lower one (0.07).
        contrast_weight: factor on the contrast by shared labels, or by pairs where there are none.
        intra_weight: factor, of that, on the contrasts within images and within texts.
        likelihood_weight: factor on the likelihood of what belongs together.
        label_weight: factor on the prediction of the labels, where there are any.
        graph_weight: factor on these three of the embeddings with the graph; those without it count 1.
        consistency_weight: factor on the distance of the embeddings without the graph from those with it, which the
            encoders are to follow.
        **kwargs: those of ``Matcher``.

    Raises:
        InputError: a number makes no graph.
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
        if k < 1:
            raise InputError(f"MCRDGN: k {k} leaves every node without neighbours; give 1 or more, or set layers to 0")
        if bank_size < 2 * (1 + concepts):
            raise InputError(f"MCRDGN: bank_size {bank_size} has no room for a pair; give {2 * (1 + concepts)} or more")
        self.dim, self.k, self.blocks, self.context, self.inference = dim, k, blocks, context, inference
        self.image_nodes = ItemNodes(self.image.width, dim, concepts)
        self.text_nodes = ItemNodes(self.text.width, dim, concepts)
        if not label_votes or min(label_votes) < 0:
            raise InputError(f"MCRDGN: label_votes {list(label_votes)}; give one or more, each at least 0")
        self.label_votes = list(label_votes)
        weights = contrast_weight, intra_weight, likelihood_weight, label_weight
        self.plain_losses = Losses(dim, temperature, *weights)
        self.end_to_end = end_to_end
        self.graph_weight, self.consistency_weight = graph_weight, consistency_weight
        if layers:
            self.graph_losses = Losses(dim, temperature, *weights)
            self.graph = DynamicGraph(dim, layers, attention, edges, update, step)
            seen = (self.image.width, self.text.width) if update == "static" else None
            self.bank = Bank(bank_size // (2 * (1 + concepts)), 1 + concepts, dim, seen)
        self.layers, self.static = layers, update == "static"
        self.register_buffer("uses_graph", torch.tensor(True))
        self.register_buffer("label_vote", torch.tensor(float(label_votes[0])))
        self._filled_at = -1

    # --- what a method is -------------------------------------------------------------------------------------------

    def encode_image(self, images: Inputs) -> Embeddings:
        return self._embed(0, *self.image_nodes(self.image(images)))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return self._embed(1, *self.text_nodes(self.text(tokens)))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        labels = gather_rows(self, batch["labels"]) if "labels" in batch else None
        loss = self.plain_losses(image.pooled, text.pooled, positives, labels)
        if not self.layers:
            return loss
        related = self._related(image, text, gather_rows(self, batch["image_index"]))
        with_graph = self.graph_losses(related[0].pooled, related[1].pooled, positives, labels)
        # The encoder follows the graph, which has seen more: no gradient makes the graph follow the encoder.
        apart = [
            1 - (plain.pooled * graph.pooled.detach()).sum(1).mean()
            for plain, graph in zip((image, text), related, strict=True)
        ]
        return loss + self.graph_weight * with_graph + self.consistency_weight * (apart[0] + apart[1])

    def _related(self, image: Embeddings, text: Embeddings, item: Tensor) -> tuple[Embeddings, Embeddings]:
        """Embeddings of a training batch with the graph."""
        assert image.tokens is not None and text.tokens is not None
        nodes = image.tokens[..., : self.dim], text.tokens[..., : self.dim]
        if not self.end_to_end:
            nodes = nodes[0].detach(), nodes[1].detach()
        seen = (image.tokens[..., self.dim :], text.tokens[..., self.dim :]) if self.static else None
        context = self.bank.context(self.k, self.blocks) if self.context == "bank" else None
        if context is None:
            context = pair_context(item, *nodes, self.k, self.blocks, seen)
        own = own_images(item.repeat_interleave(nodes[0].shape[1]).repeat(2))
        by = nodes if seen is None else seen
        done = self.graph(torch.cat(nodes).flatten(0, 1), context, own, (by[0].flatten(0, 1), by[1].flatten(0, 1)))
        states = done[-1].states.view(2, *nodes[0].shape)
        return Embeddings(read_out(states[0])), Embeddings(read_out(states[1]))

    # --- an item at test --------------------------------------------------------------------------------------------

    @property
    def inductive(self) -> bool:
        return self.inference != "transductive"

    def _embed(self, modality: int, nodes: Tensor, seen: Tensor) -> Embeddings:
        """In training the plain vector with its nodes (and what edges are found by); else the vector to be tested."""
        plain = read_out(nodes)
        if self.training:
            tokens = torch.cat([nodes, seen], dim=2) if self.static else nodes
            return Embeddings(plain, tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool))
        if self._choosing:
            return Embeddings(torch.cat([plain, *self.with_graph(modality, nodes, seen)], dim=1))
        if not self.graph_at_test:
            return Embeddings(plain)
        return Embeddings(joined(*self.with_graph(modality, nodes, seen), self.label_vote))

    @property
    def graph_at_test(self) -> bool:
        """Whether test embeddings are those with the graph."""
        return self.layers > 0 and self.inference != "encoder" and (self.inference != "auto" or bool(self.uses_graph))

    def with_graph(self, modality: int, nodes: Tensor, seen: Tensor, keep: Keep | None = None) -> tuple[Tensor, Tensor]:
        """What items look like `[B, D]` at test with the graph, and the votes of what they look at `[B, C]`.

        Plain vectors where there is no graph, or nothing in the bank. Votes are those of the first layer, whose edges
        the encoder's states find; none, `[B, 0]`, where there are no labels, and 0 where an item looks at none.
        """
        done = self.propagate(modality, nodes, seen, keep)
        looks = read_out(done[-1].states.view_as(nodes)) if done else read_out(nodes)
        labels = self.bank.labels if self.layers else None
        if labels is None:
            return looks, looks.new_zeros(len(nodes), 0)
        if not done or self.inference == "transductive":  # nobody may know the labels of other test items
            return looks, looks.new_zeros(len(nodes), labels.shape[1])
        return looks, votes(done[0], labels[: len(self.bank)], nodes.shape[1], len(nodes))

    def propagate(self, modality: int, nodes: Tensor, seen: Tensor, keep: Keep | None = None) -> list[Propagation]:
        """What every layer of the graph does at test with items of one modality, from their ``ItemNodes``."""
        if not self.layers:
            return []
        states, by = nodes.flatten(0, 1), (seen if self.static else nodes).flatten(0, 1)
        images = 0 if modality else len(states)
        halves = by[:images], by[images:]
        if self.inference == "transductive":
            item = torch.arange(len(nodes), device=nodes.device).repeat_interleave(nodes.shape[1])
            context = Context(Nodes(states, item, images), self.k, self.blocks, (by, by))
            return self.graph(states, context, own_images(item), halves, keep)
        bank = self.bank.context(self.k, self.blocks)
        # Nobody says which image an item belongs to: one that the bank holds is known by its looks.
        return [] if bank is None else self.graph(states, bank, bank.recognised(halves), halves, keep)

    # --- Lightning --------------------------------------------------------------------------------------------------

    def adapt(self, corpus: Corpus) -> None:
        super().adapt(corpus)
        if corpus.labels is not None:
            self._learn_labels(corpus.labels.shape[1])

    def adapt_to_state(self, state: Mapping[str, Tensor]) -> None:
        classifier = state.get("plain_losses.classifier.weight")
        if classifier is not None:
            self._learn_labels(len(classifier))

    def _learn_labels(self, labels: int) -> None:
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
        """Clip the graph's gradients apart from the encoders', which are to train as if there were none."""
        if not (self.layers and gradient_clip_val) or self.end_to_end or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        graph = {id(weight) for part in (self.graph, self.graph_losses) for weight in part.parameters()}
        for of_graph in (True, False):
            clip_grad_norm_([each for each in self.parameters() if (id(each) in graph) == of_graph], gradient_clip_val)

    def on_fit_start(self) -> None:
        self._filled_at = -1  # steps are counted anew

    def on_validation_epoch_start(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING and self.trainer.validating:  # not to check sanity, untrained
            self.fill_bank()

    def on_train_epoch_end(self) -> None:
        self.fill_bank()

    def evaluate(self, tables: Tables, stage: str) -> Evaluation:
        if not self._choosing:
            return self._said(super().evaluate(tables, stage))
        best: Evaluation | None = None
        objective = self.evaluated_by.objective
        for graph, vote in self._ways():
            found = super().evaluate(tables.map(partial(self._way, graph=graph, vote=vote)), stage)
            if best is None or found.metrics[objective] > best.metrics[objective]:
                best = found
                self.uses_graph.fill_(graph)
                self.label_vote.fill_(vote)
        assert best is not None
        return self._said(best)

    @property
    def _choosing(self) -> bool:
        """Whether this is the validation of a training, all of it, with something to choose from."""
        trainer = self._trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING or not trainer.validating:
            return False
        return not trainer.fast_dev_run and len(self._ways()) > 1  # type: ignore[attr-defined]

    def _ways(self) -> list[tuple[bool, float]]:
        """What validation chooses from: with the graph or without, and how much labels count."""
        if not self.layers or self.inference in ("encoder", "transductive"):
            return [(self.inference == "transductive", 0.0)]
        graph = [(True, vote) for vote in (self.label_votes if self.bank.labels is not None else [0.0])]
        return [*([(False, 0.0)] if self.inference == "auto" else []), *graph]

    def _way(self, items: Embeddings, graph: bool, vote: float) -> Embeddings:
        """Embeddings of one way, from all that the ways need of items."""
        plain, looks, voted = items.pooled.tensor_split([self.dim, 2 * self.dim], dim=1)
        return Embeddings(joined(looks, voted, vote) if graph else plain)

    def _said(self, found: Evaluation) -> Evaluation:
        """An evaluation whose row says whether the graph took part, and how much labels counted."""
        said = {"graph_at_test": float(self.graph_at_test), "label_vote": float(self.label_vote * self.graph_at_test)}
        return replace(found, metrics=found.metrics | said)

    def fill_bank(self) -> None:
        """Encode the bank's training pairs as a test would, once for every state of the weights.

        Every device encodes all of them: they are few, and the banks are the same.
        """
        if not self.layers or self._filled_at == self.global_step:
            return
        data, training = self.data, self.training
        images, texts = bank_rows(data.corpus, len(self.bank.item))
        precision = self.trainer.precision_plugin
        parts: list[tuple[Tensor, ...]] = []
        self.eval()
        with torch.no_grad(), precision.forward_context():
            for start in range(0, len(images), _ENCODED):
                rows = slice(start, start + _ENCODED)
                image, text = (
                    move_data_to_device(precision.convert_input(data.batch(modality, some[rows])), self.device)
                    for modality, some in (("image", images), ("text", texts))
                )
                parts.append((*self.image_nodes(self.image(image)), *self.text_nodes(self.text(text))))
            image_nodes, seen_image, text_nodes, seen_text = (torch.cat(part) for part in zip(*parts, strict=True))
            seen = (seen_image, seen_text) if self.static else None
            labels = data.corpus.labels_trained_with
            known = None if labels is None else torch.from_numpy(labels[images])
            self.bank.fill(torch.from_numpy(images).to(self.device), image_nodes, text_nodes, seen, known)
        self.train(training)
        self._filled_at = self.global_step


class Losses(nn.Module):
    """What embeddings of pairs are trained by: a contrast, a likelihood, and their labels where there are any.

    Args:
        dim: D, size of the embeddings.
        temperature: of the contrast, at the start.
        contrast_weight: factor on the contrast (soft InfoNCE) of images with texts.
        intra_weight: factor, beside the last, on that of images with images, and of texts with texts.
        likelihood_weight: factor on the likelihood of what belongs together.
        label_weight: factor on the binary cross-entropy of a linear classifier of the labels.
    """

    def __init__(
        self,
        dim: int,
        temperature: float,
        contrast_weight: float,
        intra_weight: float,
        likelihood_weight: float,
        label_weight: float,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.weights = contrast_weight, intra_weight, likelihood_weight, label_weight
        self.contrast = InfoNCE(temperature)
        self.likelihood = PairLikelihood(scale=5.0)
        self.classifier: nn.Linear | None = None

    def fit(self, labels: int) -> None:
        """Make the classifier, once the number of labels is known."""
        if self.classifier is None:
            self.classifier = nn.Linear(self.dim, labels)

    def forward(self, image: Tensor, text: Tensor, positives: Tensor, labels: Tensor | None) -> Tensor:
        """Loss, a scalar, of vectors of length 1 `[B, D]` with positives `[B, B]`, and labels `[B, C]` or None."""
        contrast, intra, likelihood, label = self.weights
        across = positives.float()
        within = across.clone().fill_diagonal_(0.0)
        scores = image @ text.T
        loss = contrast * self.contrast(scores, across) + likelihood * self.likelihood(scores, positives)
        for side in (image, text):
            loss = loss + contrast * intra * self.contrast(side @ side.T, within)
        if labels is not None:
            assert self.classifier is not None
            # Unit vectors are short for a classifier that begins with small weights.
            logits = self.classifier((torch.cat([image, text]) * self.dim**0.5).to(self.classifier.weight.dtype))
            loss = loss + label * binary_cross_entropy_with_logits(logits.float(), labels.float().repeat(2, 1))
        return loss


class ItemNodes(nn.Module):
    """An encoder's items -> their nodes: a global one of the pooled vector, and concepts that learned queries collect.

    Args:
        width: W, of the encoder.
        dim: D, of the nodes.
        concepts: how many queries.
    """

    def __init__(self, width: int, dim: int, concepts: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(concepts, width) / width**0.5)
        self.key = nn.Linear(width, width)
        self.project, self.project_concept = nn.Linear(width, dim), nn.Linear(width, dim)

    def forward(self, items: Embeddings) -> tuple[Tensor, Tensor]:
        """Nodes `[B, R, D]`, and what they were before the projection `[B, R, W]`, all of length 1."""
        assert items.tokens is not None and items.mask is not None
        logits = self.queries @ self.key(items.tokens).transpose(1, 2)  # [B, r, N]
        # An item without a real token pools its padding, so that no weight is NaN, and then has it taken away.
        real = items.mask.any(1).view(-1, 1, 1)
        weights = logits.float().masked_fill(~(items.mask.unsqueeze(1) | ~real), -torch.inf).softmax(2) * real
        concepts = weights.to(items.tokens.dtype) @ items.tokens
        nodes = torch.cat([self.project(items.pooled).unsqueeze(1), self.project_concept(concepts)], dim=1)
        raw = torch.cat([items.pooled.unsqueeze(1), concepts], dim=1)
        return normalize(nodes.float(), dim=2), normalize(raw.float(), dim=2)


def read_out(nodes: Tensor) -> Tensor:
    """Items `[B, D]` of length 1 from their nodes `[B, R, D]`: the mean direction."""
    return normalize(nodes.sum(1), dim=1)


def joined(looks: Tensor, voted: Tensor, vote: Tensor | float) -> Tensor:
    """Vectors of length 1 `[B, D + C]`: what items look like `[B, D]`, and votes `[B, C]` with their weight."""
    return normalize(torch.cat([looks, vote * voted], dim=1), dim=1)
