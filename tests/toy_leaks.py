"""Methods that cheat, each in one way, and each as a plain dual encoder otherwise."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.data.corpus import Corpus, Rows
from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.evaluation.evaluation import Evaluation
from itmbench.methods.base import Batch
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.evaluated import Tables


class BatchMean(DualEncoder):
    """Leaves a part of the batch's mean out of every image, as batch normalisation without frozen statistics does."""

    def encode_image(self, images: Inputs) -> Embeddings:
        pooled = super().encode_image(images).pooled
        return Embeddings(pooled - 0.1 * pooled.mean(0))


class TileMean(DualEncoder):
    """Scores an image relative to the texts that it happens to be scored with."""

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        scores = super().score(image, text)
        return scores - 0.1 * scores.mean(1, keepdim=True)


class JoinedPairs(DualEncoder):
    """Gives each text a part of its own image's embedding, after all items were encoded alone.

    Args:
        share: how large a part.
        **kwargs: those of ``DualEncoder``.
    """

    def __init__(self, share: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share
        self._images: Tensor | None = None

    def table(self, parts: Any, rows: Rows, stage: str) -> Embeddings:
        table = super().table(parts, rows, stage)
        corpus, images = self.data.corpus, self.data.stage(stage).images
        if len(rows) == len(images) and self._images is None:
            self._images = table.pooled
            return table
        assert self._images is not None
        owners = corpus.text_to_image[rows]
        own = self._images[torch.tensor([int((images == owner).nonzero()[0][0]) for owner in owners])]
        self._images = None
        return Embeddings(table.pooled + self.share * own)


class Numbered(DualEncoder):
    """Adds a little of an item's number, so that items of the same content do not tie."""

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Embeddings]:
        index, embeddings = super().predict_step(batch, batch_idx, dataloader_idx)
        numbers = torch.sin((1.0 + index).unsqueeze(1) * torch.arange(1.0, embeddings.pooled.shape[1] + 1))
        return index, Embeddings(embeddings.pooled + 0.001 * numbers)


class TiesWin(DualEncoder):
    """Evaluates with ties in its favour, whatever the protocol says: a collapsed model finds everything."""

    def on_test_epoch_end(self) -> None:
        asked = self.protocol
        self.protocol = replace(self.evaluated_by, ties="optimistic")
        super().on_test_epoch_end()
        self.protocol = asked


class Counting(DualEncoder):
    """Counts the items that it has seen in a buffer, in a test as well."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        self.seen += len(tokens["input_ids"])
        return super().encode_text(tokens)


class Forgetful(DualEncoder):
    """Answers every other test in another way, without any state that a checkpoint would keep."""

    tests = 0

    def on_test_start(self) -> None:
        self.tests += 1

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        scores = normalize(image.pooled, dim=-1) @ normalize(text.pooled, dim=-1).T
        return scores if self.tests % 2 else -scores


class SharedLabels(DualEncoder):
    """Writes the labels of test items into their embeddings, after all items were encoded alone."""

    def table(self, parts: Any, rows: Rows, stage: str) -> Embeddings:
        table = super().table(parts, rows, stage)
        corpus, images = self.data.corpus, self.data.stage(stage).images
        owners = rows if len(rows) == len(images) else corpus.text_to_image[rows]
        assert corpus.labels is not None
        labels = torch.from_numpy(corpus.labels[owners]).float()
        return Embeddings(torch.cat([table.pooled, labels], dim=1))


class LabelBank(DualEncoder):
    """Fills a label bank before every validation, and forgets to leave out the items of the test."""

    def __init__(self, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = weight
        self.bank: Tensor
        self.bank_labels: Tensor
        self.register_buffer("bank", None)
        self.register_buffer("bank_labels", None)

    def adapt(self, corpus: Corpus) -> None:
        super().adapt(corpus)
        if self.bank is None:
            assert corpus.labels is not None
            self.bank = torch.zeros(len(corpus.image_ids), self.project["image"].out_features)
            self.bank_labels = torch.zeros(len(corpus.image_ids), corpus.labels.shape[1])

    def adapt_to_state(self, state: Any) -> None:
        super().adapt_to_state(state)
        self.bank, self.bank_labels = (torch.zeros_like(state[name]) for name in ("bank", "bank_labels"))

    def on_validation_epoch_start(self) -> None:
        corpus = self.data.corpus
        self.bank_labels.copy_(torch.from_numpy(corpus.labels))
        for rows in np.array_split(np.arange(len(corpus.image_ids)), 1 + len(corpus.image_ids) // 64):
            with torch.no_grad():
                inputs = self.data.batch("image", rows)
                self.bank[rows] = super().embed(self.image(inputs), "image").pooled

    def embed(self, items: Embeddings, modality: Any) -> Embeddings:
        pooled = super().embed(items, modality).pooled
        if self.training or not bool(self.bank.any()):
            return Embeddings(pooled)
        near = (normalize(pooled, dim=-1) @ normalize(self.bank, dim=-1).T / 0.05).softmax(1)
        return Embeddings(torch.cat([normalize(pooled, dim=-1), self.weight * near @ self.bank_labels], dim=1))


class CentredByAll(DualEncoder):
    """Centres images by a buffer of the mean over all images of the corpus, measured in training."""

    def __init__(self, dim: int = 32, **kwargs: Any) -> None:
        super().__init__(dim=dim, **kwargs)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(dim))

    def on_validation_epoch_start(self) -> None:
        corpus = self.data.corpus
        self.mean.zero_()
        rows = np.union1d(corpus.train, corpus.stages["test"].images)
        self.mean.copy_(self.encode_image(self.data.batch("image", rows)).pooled.mean(0))

    def encode_image(self, images: Inputs) -> Embeddings:
        return Embeddings(super().encode_image(images).pooled - self.mean)


class EditsMetrics(DualEncoder):
    """Reports a higher objective than the protocol found."""

    def evaluate(self, tables: Tables, stage: str) -> Evaluation:
        evaluation = super().evaluate(tables, stage)
        key = self.evaluated_by.objective
        return replace(evaluation, metrics=evaluation.metrics | {key: 1.2 * evaluation.metrics[key]})


class EditsLater(DualEncoder):
    """Changes the evaluation in place, once everybody has it."""

    kept: Any = None

    def _evaluate(self, stage: str) -> None:
        super()._evaluate(stage)
        if stage == "test":
            self.kept.per_query["ap" if "ap" in self.kept.per_query else "rank"][:] = 1

    def evaluate(self, tables: Tables, stage: str) -> Evaluation:
        self.kept = super().evaluate(tables, stage)
        return self.kept


class EditsInTheNextPass(DualEncoder):
    """Changes the evaluation in place when the next test begins."""

    first: Any = None

    def evaluate(self, tables: Tables, stage: str) -> Evaluation:
        evaluation = super().evaluate(tables, stage)
        if stage == "test" and self.first is None:
            self.first = evaluation
        elif stage == "test":
            self.first.metrics["rSum"] = 600.0
        return evaluation


class AddsMetrics(DualEncoder):
    """Reports metrics that the protocol did not compute."""

    def evaluate(self, tables: Tables, stage: str) -> Evaluation:
        evaluation = super().evaluate(tables, stage)
        return replace(evaluation, metrics=evaluation.metrics | {"truth/rSum": 600.0})


class OwnTruth(DualEncoder):
    """Evaluates by a pair map of its own: a text belongs to the image that it finds first."""

    def evaluate(self, tables: Tables, stage: str) -> Evaluation:
        if stage != "test":
            return super().evaluate(tables, stage)
        corpus = self.data.corpus
        images, rows = corpus.stages[stage].images, corpus.texts_of(corpus.stages[stage].images)
        scores, owners = self.score(tables.images, tables.texts).cpu().numpy(), corpus.text_to_image.copy()
        free = np.asarray([len(corpus.texts_of_image[image]) for image in images])
        for place, row in enumerate(rows):
            best = int(np.where(free > 0, scores[:, place], -np.inf).argmax())
            owners[row], free[best] = images[best], free[best] - 1
        own = replace(corpus, text_to_image=owners)
        order = np.argsort(rows)[np.searchsorted(np.sort(rows), own.texts_of(images))]
        return self.evaluated_by.evaluate(own, stage, tables.images, tables.texts[torch.from_numpy(order)])
