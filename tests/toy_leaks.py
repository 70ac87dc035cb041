"""Methods that cheat, each in one way, and each as a plain dual encoder otherwise."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.data.corpus import Rows
from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.methods.base import Batch
from itmbench.methods.dual_encoder import DualEncoder


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

    def table(self, parts: list[tuple[Tensor, Embeddings]], rows: Rows, stage: str) -> Embeddings:
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

    def table(self, parts: list[tuple[Tensor, Embeddings]], rows: Rows, stage: str) -> Embeddings:
        table = super().table(parts, rows, stage)
        corpus, images = self.data.corpus, self.data.stage(stage).images
        owners = rows if len(rows) == len(images) else corpus.text_to_image[rows]
        assert corpus.labels is not None
        labels = torch.from_numpy(corpus.labels[owners]).float()
        return Embeddings(torch.cat([table.pooled, labels], dim=1))
