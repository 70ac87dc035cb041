"""MCR-DGN: regions, words and whole items attach to a frozen bank of training pairs, whose labels they receive."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout, normalize

from itmbench.data.corpus import Corpus, Rows
from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Batch, Modality
from itmbench.methods.distributed import gather_rows
from itmbench.methods.explained import Items, grid_side
from itmbench.methods.explanations import ExplainedItem, ExplainedLabel
from itmbench.methods.hash_codes import HashMatcher
from itmbench.methods.losses import InfoNCE, PairLikelihood
from itmbench.methods.mcr_dgn.bank import Bank, Contexts, Nodes, bank_rows
from itmbench.methods.mcr_dgn.context import Rule
from itmbench.methods.mcr_dgn.explain import Naming
from itmbench.methods.mcr_dgn.graph import Keep, Kinds, propagate
from itmbench.methods.mcr_dgn.labels import LabelNodes
from itmbench.methods.relevance import mixed, relevance_vectors

BASIS_ITEMS = 1000
"""Training items whose tokens give the principal directions of the label nodes."""


class MCRDGN(HashMatcher):
    """Mutual contextual relation-guided dynamic graph network, implemented after its published description.

    An item has a node of its pooled vector and one for each label, of the regions or words that the label attends to.
    At test, every node attaches by mutual nearest neighbours to the nodes of its kind in a frozen bank of training
    pairs, and messages along these edges carry the labels of the pairs. Items are ranked by the probability that they
    share a label.

    Args:
        dim: D, size of the common space.
        node_dim: E, size of the label nodes.
        k: nearest nodes that form the context of a node.
        edges: "mutual": each is in the other's context; "nearest": the bank's node is in the item's.
        nodes: those that attach to the bank: all, those of whole items, or those of the labels; "none" leaves out the
            graph.
        graph_weights: candidates for the share of what the graph says in the label probabilities; validation chooses.
        bank_size: most training pairs in the bank.
        shuffle_labels: give the bank's pairs each other's labels: the control, a graph without information.
        temperature: initial temperature of the contrast, which is learned.
        contrast_weight: weight of the contrast (soft InfoNCE) of images and texts by shared labels.
        intra_weight: weight, within the contrast, of the contrasts among images and among texts.
        likelihood_weight: weight of the likelihood of pairs that share a label.
        label_weight: weight of the label prediction.
        dropout: probability, in training, of dropping a channel of an item's pooled vector or of all its tokens.
        **kwargs: arguments of ``HashMatcher``; codes are made from the label probabilities.

    Raises:
        InputError: an option leaves no graph, or ``votes`` are given, which the graph has itself.
    """

    graph_weight: Tensor
    switchable = HashMatcher.switchable | {"nodes", "graph_weights"}

    def __init__(
        self,
        dim: int = 256,
        node_dim: int = 128,
        k: int = 128,
        edges: Rule = "mutual",
        nodes: Kinds = "all",
        graph_weights: Sequence[float] = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        bank_size: int = 16384,
        shuffle_labels: bool = False,
        temperature: float = 0.22,
        contrast_weight: float = 0.3,
        intra_weight: float = 0.14,
        likelihood_weight: float = 0.15,
        label_weight: float = 4.0,
        dropout: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.votes is not None:
            raise InputError("MCRDGN: its graph votes; remove votes (nodes: items and edges: nearest are plain votes)")
        if k < 1 or bank_size < 1:
            raise InputError(f"MCRDGN: k is {k} and bank_size {bank_size}; give 1 or more, or nodes: none")
        if not graph_weights or min(graph_weights) < 0 or max(graph_weights) > 1:
            raise InputError(f"MCRDGN: graph_weights is {list(graph_weights)}; give one or more, each from 0 to 1")
        self.dim, self.node_dim, self.k, self.edges, self.nodes = dim, node_dim, k, edges, nodes
        self.graph_weights, self.bank_size, self.shuffle_labels = list(graph_weights), bank_size, shuffle_labels
        self.intra_weight, self.label_weight, self.dropout = intra_weight, label_weight, dropout
        self.contrast_weight, self.likelihood_weight = contrast_weight, likelihood_weight
        self.project = self.per_modality(lambda width: nn.Linear(width, dim))
        self.label_nodes: nn.ModuleDict | None = None  # built, with the classifier, once the number of labels is known
        self.contrast, self.likelihood = InfoNCE(temperature), PairLikelihood(scale=5.0)
        self.bank = Bank()
        self.register_buffer("graph_weight", torch.tensor(float(graph_weights[0])))

    # --- what a method is -------------------------------------------------------------------------------------------

    def adapt(self, corpus: Corpus) -> None:
        labels = self.training_labels(corpus)
        super().adapt(corpus)
        self._build(labels.shape[1])

    def adapt_to_state(self, state: Mapping[str, Tensor]) -> None:
        self._build(len(state["classifier.weight"]))

    def _build(self, labels: int) -> None:
        if self.label_nodes is None:
            self.label_nodes = self.per_modality(lambda width: LabelNodes(width, labels, self.node_dim))
            self.classifier = nn.Linear(self.dim, labels)
            self.hash_head = self.make_hash_head(self.dim + labels)

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        """Vectors and label logits side by side, pooled `[B, D + C]`; at test also the label nodes, `[B, C, E]`."""
        assert self.label_nodes is not None
        labels = cast(LabelNodes, self.label_nodes[modality])
        if self.training and self.dropout:
            assert items.tokens is not None
            tokens = items.tokens * dropout(torch.ones_like(items.tokens[:, :1]), self.dropout)
            items = Embeddings(dropout(items.pooled, self.dropout), tokens, items.mask)
        vectors = normalize(self.project[modality](items.pooled).float(), dim=1)
        # Unit vectors are too short for a classifier that starts with small weights.
        logits = self.classifier((vectors * self.dim**0.5).to(self.classifier.weight.dtype)) + labels(items)
        pooled = torch.cat([vectors, logits.float()], dim=1)
        if self.training or self.nodes == "none":
            return Embeddings(pooled)
        nodes = labels.nodes(items)
        return Embeddings(pooled, nodes, nodes.new_ones(nodes.shape[:2], dtype=torch.bool))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        (image_vectors, image_logits), (text_vectors, text_logits) = self.split(image), self.split(text)
        across = positives.float()
        within = across.clone().fill_diagonal_(0.0)
        scores = image_vectors @ text_vectors.T
        contrast = self.contrast(scores, across)
        for vectors in (image_vectors, text_vectors):
            contrast = contrast + self.intra_weight * self.contrast(vectors @ vectors.T, within)
        labels = gather_rows(self, batch["labels"]).float().repeat(2, 1)
        predicted = binary_cross_entropy_with_logits(torch.cat([image_logits, text_logits]), labels)
        likelihood = self.likelihood(scores, positives)
        loss = self.contrast_weight * contrast + self.likelihood_weight * likelihood + self.label_weight * predicted
        hashed_images = torch.cat([image_vectors, image_logits.sigmoid()], dim=1)
        hashed_texts = torch.cat([text_vectors, text_logits.sigmoid()], dim=1)
        return loss + self.hash_loss(hashed_images, hashed_texts, positives)

    def split(self, items: Embeddings) -> tuple[Tensor, Tensor]:
        """Vectors `[B, D]` and logits `[B, C]` of embedded items."""
        return items.pooled[:, : self.dim], items.pooled[:, self.dim :]

    # --- an item at test --------------------------------------------------------------------------------------------

    def at_test(self, items: Embeddings, modality: Modality) -> Embeddings:
        """Relevance vectors of embedded items; while validation chooses, what its candidates need."""
        if self.choosing:
            vectors, logits = self.split(items)
            return Embeddings(torch.cat([vectors, logits.sigmoid(), self.received(items, modality)], dim=1))
        return self.ranked(items, modality)

    def ranked(self, items: Embeddings, modality: Modality, keep: Keep | None = None) -> Embeddings:
        """Relevance vectors of embedded items; ``keep`` selects edges."""
        vectors, logits = self.split(items)
        probability = logits.sigmoid()
        if self.graph_at_test:
            probability = mixed(probability, self.received(items, modality, keep), self.graph_weight)
        return self._represented(vectors, probability, modality)

    def _represented(self, vectors: Tensor, probability: Tensor, modality: Modality) -> Embeddings:
        """Test embeddings from vectors `[B, D]` and label probabilities `[B, C]`.

        These are relevance vectors of the probabilities, or relaxed hash codes of both.
        """
        if self.hash_head is None:
            return Embeddings(relevance_vectors(probability, modality))
        return Embeddings(self.hash_head(torch.cat([vectors, probability.float()], dim=1), modality))

    def received(self, items: Embeddings, modality: Modality, keep: Keep | None = None) -> Tensor:
        """What the labels receive from the bank for embedded items, `[B, C]`; ``keep`` selects edges."""
        assert items.tokens is not None and self.nodes != "none"
        nodes = Nodes(self.split(items)[0], items.tokens)
        contexts = self.bank.contexts(modality, self.k, self.edges)
        return propagate(nodes, contexts, self.bank.labels, self.nodes, keep)

    @property
    def graph_at_test(self) -> bool:
        """Whether test embeddings use the graph."""
        return self.nodes != "none" and len(self.bank) > 0 and bool(self.graph_weight > 0)

    @property
    def choices(self) -> dict[str, Any]:
        """The share of the graph in the label probabilities; 0: it is not used at test."""
        return {"graph_weight": round(float(self.graph_weight), 6) if self.graph_at_test else 0.0}

    def candidates(self) -> Sequence[Any]:
        return () if self.nodes == "none" else self.graph_weights

    def choose(self, candidate: Any) -> None:
        self.graph_weight.fill_(candidate)

    def as_candidate(self, items: Embeddings, modality: Modality, candidate: Any) -> Embeddings:
        vectors, labels = self.split(items)
        predicted, received = labels.chunk(2, dim=1)
        return self._represented(vectors, mixed(predicted, received, candidate), modality)

    # --- why --------------------------------------------------------------------------------------------------------

    def attached(self, modality: Modality) -> Contexts:
        """What items of a modality attach to; an InputError if the model has no graph, or the bank is empty."""
        if self.nodes == "none" or not len(self.bank):
            raise InputError(
                "explain: the model has no graph or is untrained; give a checkpoint of a model with a graph"
            )
        return self.bank.contexts(modality, self.k, self.edges)

    @torch.no_grad()
    def explain_items(self, corpus: Corpus, items: Items, top: int) -> list[ExplainedItem]:
        """Explain items by the training items of the corpus that the model was trained on: ``top`` of everything.

        Each has its three most probable labels. Kinds of nodes that do not attach see nothing.

        Raises:
            InputError: training on this corpus would not have given the rows that the bank holds, or there is no graph.
        """
        modality, contexts, pairs = items.modality, self.attached(items.modality), bank_rows(corpus, self.bank_size)
        if not np.array_equal(pairs[0], self.bank.rows.cpu()):
            raise InputError(f"explain: the checkpoint was not trained on this {corpus.name}; give its training data")
        naming = Naming(modality, corpus, pairs, self.bank.labels, top)
        assert self.label_nodes is not None
        read = (self.image if modality == "image" else self.text)(items.inputs)
        embedded = self.embed(read, modality)
        assert embedded.tokens is not None
        parts = cast(LabelNodes, self.label_nodes[modality]).attention(read)
        vectors, logits = self.split(embedded)
        predicted, received = logits.sigmoid(), self.received(embedded, modality)
        hidden = contexts.item.copies(vectors)
        whole = None if self.nodes == "labels" else contexts.item.attach(vectors, hidden)
        nodes = zip(contexts.labels, embedded.tokens.unbind(1), strict=True)
        of_labels = [None if self.nodes == "items" else context.attach(own, hidden) for context, own in nodes]
        probable = mixed(predicted, received, self.graph_weight if self.graph_at_test else 0.0).argsort(descending=True)

        def explained(row: int, label: int) -> ExplainedLabel:
            weights = parts[row, :, label]
            return ExplainedLabel(
                naming.labels[label],
                float(predicted[row, label]),
                float(received[row, label]),
                naming.parts(self, weights, None if read.words is None else read.words[row]),
                weights.tolist() if modality == "image" else [],
                naming.seen(of_labels[label], row),
            )

        grid = grid_side(self, parts.shape[1]) if modality == "image" else None
        return [
            ExplainedItem(modality, id_, text, grid, naming.seen(whole, row), [explained(row, n) for n in labels[:3]])
            for row, (id_, text, labels) in enumerate(zip(items.ids, items.texts, probable.tolist(), strict=True))
        ]

    # --- the bank ---------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Encode the bank's training pairs."""
        if self.nodes == "none":
            return
        assert self.label_nodes is not None
        corpus = self.data.corpus
        images, texts = bank_rows(corpus, self.bank_size)
        rows: dict[Modality, Rows] = {"image": images, "text": texts}
        few = {modality: wanted[:BASIS_ITEMS] for modality, wanted in rows.items()}
        for modality, items in self.encode_training(few, lambda items, _: items).items():
            self.label_nodes[modality].fit_basis(items)  # type: ignore[operator]
        encoded = self.encode_training(rows, self.embed)
        nodes = []
        for items in encoded.values():
            assert items.tokens is not None
            nodes.append(Nodes(self.split(items)[0], items.tokens))
        labels = corpus.labels_trained_with
        assert labels is not None
        of_pairs = np.random.default_rng(0).permutation(images) if self.shuffle_labels else images
        self.bank.fill(torch.from_numpy(images), torch.from_numpy(labels[of_pairs]), *nodes)
