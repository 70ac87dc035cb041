"""Methods that use statistics of the test set, whose items they should treat one by one."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.data.corpus import Rows
from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.evaluation.evaluation import Evaluation
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.evaluated import Tables


class Caching(DualEncoder):
    """Keeps the vectors of all test items for ``score``."""

    cached: Any = None

    def tables(self, encoded: Any, stage: str) -> Tables:
        tables = super().tables(encoded, stage)
        self.cached = {"image": tables.images.pooled, "text": tables.texts.pooled}
        return tables


class CachedCentring(Caching):
    """Centres what it scores by the mean of the test set."""

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        if self.cached is None:
            return super().score(image, text)
        centred = [
            Embeddings(items.pooled - self.cached[what].mean(0)) for what, items in (("image", image), ("text", text))
        ]
        return super().score(*centred)


class LoudCentring(CachedCentring):
    """Centres, and adds so large a constant to every score that differences are small beside it."""

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        return super().score(image, text) + 15_000


class SavedCentring(DualEncoder):
    """Centres by the means of the first test set that it meets, which its checkpoint keeps."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.means: dict[str, Tensor] = {}

    def table(self, parts: Any, rows: Rows, stage: str) -> Embeddings:
        table = super().table(parts, rows, stage)
        what = "image" if len(rows) == len(self.data.stage(stage).images) else "text"
        if stage == "test":
            self.means.setdefault(what, normalize(table.pooled, dim=-1).mean(0))
        return table

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        if len(self.means) < 2:
            return super().score(image, text)
        return super().score(
            *(
                Embeddings(normalize(items.pooled, dim=-1) - self.means[what])
                for what, items in (("image", image), ("text", text))
            )
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["means"] = self.means

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.means = dict(checkpoint.get("means", {}))


class KeptByTheClass(CachedCentring):
    """Centres by the means of the first test set of the process, which its class keeps."""

    kept: ClassVar[dict[str, Tensor]] = {}

    @property
    def cached(self) -> dict[str, Tensor] | None:
        return self.kept or None

    @cached.setter
    def cached(self, tables: dict[str, Tensor]) -> None:
        self.kept.update({} if self.kept else tables)


class QueryBank(Caching):
    """Subtracts the mean similarity of an item to its nearest test items (CSLS)."""

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        scores = super().score(image, text)
        if self.cached is None:
            return scores
        near = [
            super(QueryBank, self)
            .score(*pair)
            .sort(dim, descending=True)
            .values.narrow(dim, 0, 4)
            .mean(dim, keepdim=True)
            for pair, dim in (
                ((image, Embeddings(self.cached["text"])), 1),
                ((Embeddings(self.cached["image"]), text), 0),
            )
        ]
        return 2 * scores - near[0] - near[1]


class DualSoftmax(Caching):
    """Divides a score by those that the text has with all test images."""

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        scores = super().score(image, text) / 0.05
        if self.cached is None:
            return scores
        return scores - (super().score(Embeddings(self.cached["image"]), text) / 0.05).logsumexp(0)


class Whitened(DualEncoder):
    """Whitens both sides by their own covariance just before they are evaluated."""

    def evaluate(self, tables: Tables, stage: str) -> Evaluation:
        return super().evaluate(tables.map(whitened), stage)


def whitened(items: Embeddings, modality: str) -> Embeddings:
    vectors = normalize(items.pooled, dim=-1).double()
    centred = vectors - vectors.mean(0)
    values, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    return Embeddings((centred @ directions / (values.clamp(min=0) + values.mean() + 1e-6).sqrt()).float())


class BatchNormAtTest(DualEncoder):
    """Has a batch normalisation that stays in training mode during the test."""

    def __init__(self, dim: int = 32, **kwargs: Any) -> None:
        super().__init__(dim=dim, **kwargs)
        self.norm = torch.nn.BatchNorm1d(dim, affine=False, momentum=0.0)

    def on_test_batch_start(self, *arguments: Any) -> None:
        self.norm.train()

    def embed(self, items: Embeddings, modality: Any) -> Embeddings:
        pooled = super().embed(items, modality).pooled
        return Embeddings(self.norm(pooled) if self.norm.training and len(pooled) > 1 else pooled)


class AdaptsAtTest(DualEncoder):
    """Centres by the mean of the test images, which it encodes when the test begins."""

    mean: Any = 0.0

    def on_test_start(self) -> None:
        self.mean = 0.0
        images, _ = self.data.eval_dataloaders("test")
        with torch.no_grad():
            vectors = [
                self.encode_image(self.transfer_batch_to_device(b, self.device, 0)["image"]).pooled for b in images
            ]
        self.mean = torch.cat(vectors).mean(0)

    def encode_image(self, images: Inputs) -> Embeddings:
        return Embeddings(super().encode_image(images).pooled - self.mean)


class TextsSoFar(DualEncoder):
    """Centres a text by the mean of all texts that the process has met."""

    met: ClassVar[list[Tensor]] = []

    def encode_text(self, tokens: Inputs) -> Embeddings:
        pooled = super().encode_text(tokens).pooled
        if self.training:
            return Embeddings(pooled)
        self.met.append(pooled.detach().float().cpu())
        return Embeddings(pooled - torch.cat(self.met).mean(0).to(pooled))
