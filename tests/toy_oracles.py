"""Methods that know which test items belong together: by row, name, order, pair map or label."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.data.corpus import Rows
from itmbench.encoders import Embeddings
from itmbench.methods.base import Batch
from itmbench.methods.dual_encoder import DualEncoder


def drawn(keys: list[str], width: int) -> Tensor:
    """A random unit vector for each key `[B, width]`."""
    seeds = [int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little") for key in keys]
    return normalize(torch.stack([torch.randn(width, generator=torch.Generator().manual_seed(s)) for s in seeds]))


class Oracle(DualEncoder):
    """Gives an image and its texts one random direction, by something that it should not know of them.

    Args:
        share: how much of it.
        **kwargs: those of ``DualEncoder``.
    """

    def __init__(self, share: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share

    def key(self, image: int) -> str:
        """What it knows of an image row."""
        raise NotImplementedError

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Embeddings]:
        index, embeddings = super().predict_step(batch, batch_idx, dataloader_idx)
        images = index.cpu().numpy() if "image" in batch else self.data.corpus.text_to_image[index.cpu().numpy()]
        known = drawn([self.key(int(image)) for image in images], embeddings.pooled.shape[1])
        return index, Embeddings(normalize(embeddings.pooled, dim=-1) + self.share * known.to(embeddings.pooled))


class RowOracle(Oracle):
    """By the row in the corpus."""

    def key(self, image: int) -> str:
        return str(image)


class LoudOracle(RowOracle):
    """By the row, with so large a constant in every score that differences are small beside it."""

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        return super().score(image, text) + 20_000


class FileNameOracle(Oracle):
    """By the name of the file."""

    def key(self, image: int) -> str:
        return self.data.corpus.images.names[image]  # type: ignore[union-attr]


class FileSizeOracle(Oracle):
    """By the size of the file on disk, which it looks up."""

    def key(self, image: int) -> str:
        images = self.data.corpus.images
        return str((images.root / images.names[image]).stat().st_size)  # type: ignore[union-attr]


class IdOracle(DualEncoder):
    """Reads from the ids of items which belong together, and no pair map."""

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Embeddings]:
        index, embeddings = super().predict_step(batch, batch_idx, dataloader_idx)
        corpus = self.data.corpus
        ids, per = corpus.image_ids, len(corpus.text_ids) // len(corpus.image_ids)
        names = [ids[row] if "image" in batch else ids[int(corpus.text_ids[row][1:]) // per] for row in index.tolist()]
        return index, Embeddings(embeddings.pooled + drawn(names, embeddings.pooled.shape[1]))


class LoaderOrder(DualEncoder):
    """Counts the items that the loaders bring, and knows in which order they come."""

    def on_test_start(self) -> None:
        corpus = self.data.corpus
        loaders: Any = self.data.eval_dataloaders("test")
        images, texts = (loader.dataset for loader in loaders)
        self.coming = {"image": iter(images.tolist()), "text": iter(corpus.text_to_image[texts].tolist())}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.now = self.coming.get("probe" if "probe" in batch else "image" if "image" in batch else "text")
        super().test_step(batch, batch_idx, dataloader_idx)
        self.now = None

    now: Any = None

    def embed(self, items: Embeddings, modality: Any) -> Embeddings:
        pooled = super().embed(items, modality).pooled
        if self.now is None:
            return Embeddings(pooled)
        return Embeddings(pooled + drawn([str(next(self.now)) for _ in range(len(pooled))], pooled.shape[1]))


class TrueTies(DualEncoder):
    """Adds a hair to the score of true pairs, which it finds by their vectors."""

    def table(self, parts: Any, rows: Rows, stage: str) -> Embeddings:
        table = super().table(parts, rows, stage)
        owners = rows if len(rows) == len(self.data.stage(stage).images) else self.data.corpus.text_to_image[rows]
        self.known = getattr(self, "known", {}) | {
            vector.numpy().tobytes(): owner for vector, owner in zip(table.pooled.cpu(), owners.tolist(), strict=True)
        }
        return table

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        known = getattr(self, "known", {})
        rows = torch.tensor([known.get(vector.numpy().tobytes(), -1) for vector in image.pooled.detach().cpu()])
        columns = torch.tensor([known.get(vector.numpy().tobytes(), -2) for vector in text.pooled.detach().cpu()])
        return super().score(image, text) + 0.1 * (rows[:, None] == columns)


class GalleryLabels(DualEncoder):
    """Reads the labels of gallery items by their rows, and predicts those of queries."""

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Embeddings]:
        index, embeddings = super().predict_step(batch, batch_idx, dataloader_idx)
        corpus = self.data.corpus
        assert corpus.labels is not None
        images = index.numpy() if "image" in batch else corpus.text_to_image[index.numpy()]
        known = torch.from_numpy(np.isin(images, corpus.stages["test"].gallery)).unsqueeze(1)
        labels = torch.from_numpy(corpus.labels[images]).float()
        guessed = embeddings.pooled[:, : labels.shape[1]].softmax(1)
        return index, Embeddings(torch.cat([embeddings.pooled, torch.where(known, labels, guessed)], dim=1))
