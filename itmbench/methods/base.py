"""Matcher: what every method is."""

import contextlib
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, ClassVar, NamedTuple, Self, cast

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from torch.optim.lr_scheduler import LambdaLR

from itmbench.checkpoint import read_checkpoint
from itmbench.data.corpus import Corpus, ImageFiles, Rows
from itmbench.data.datamodule import CorpusDataModule, Sources
from itmbench.data.perturb import RULES
from itmbench.encoders import Embeddings, Encoder, ScratchTextEncoder, TimmImageEncoder
from itmbench.encoders.base import PRETRAINING, Inputs
from itmbench.encoders.embeddings import ImageEmbeddings, TextEmbeddings
from itmbench.encoders.stored import encode_corpus, encode_once, is_encoded_once, processor_of
from itmbench.errors import InputError
from itmbench.evaluation.probe import probe_shares
from itmbench.evaluation.protocol import CaptionProtocol, Evaluation, LabelProtocol, protocol_for
from itmbench.methods.distributed import gather_embeddings, gather_rows
from itmbench.methods.losses import positives
from itmbench.options import IRRELEVANT, Recorded, build, differences

Batch = dict[str, Any]
HYPER_PARAMETERS = "hyper_parameters"
"""Where Lightning looks in a checkpoint for the arguments of ``load_from_checkpoint``."""


class EvaluationCallback(L.Callback):
    """A callback that is also handed the embeddings of every evaluated stage, and the evaluation."""

    def on_encoded(self, model: "Matcher", stage: str, images: Embeddings, texts: Embeddings) -> None:
        """Called before evaluation with the embeddings of the stage, in corpus order; on every device."""

    def on_evaluated(self, model: "Matcher", stage: str, evaluation: Evaluation) -> None:
        """Called after evaluation; on every device."""


class KeepEvaluation(EvaluationCallback):
    """Keeps the last evaluation.

    Attributes:
        evaluation: None until a stage has been evaluated.
    """

    def __init__(self) -> None:
        self.evaluation: Evaluation | None = None

    def on_evaluated(self, model: "Matcher", stage: str, evaluation: Evaluation) -> None:
        self.evaluation = evaluation


class Ranking(NamedTuple):
    """A gallery ranked for every query.

    Args:
        order: rows of the gallery, best first, int64 `[Q, N]`.
        scores: float32 `[Q, N]`, in the same order.
    """

    order: Tensor
    scores: Tensor


class Matcher(Recorded, L.LightningModule):
    """Base of all methods: two encoders, a score and a training loss.

    A method overrides ``encode_image``, ``encode_text`` and ``training_loss``, and ``score`` where it is not the
    cosine of the pooled vectors. Encoding an item must not depend on what else is in its batch. A method whose layers
    depend on the data makes them in ``adapt``, and in ``adapt_to_state`` from the weights of a checkpoint.

    Args:
        image: the image encoder; by default a tiny vision transformer trained from scratch.
        text: the text encoder; by default a small BERT trained from scratch.
        lr: peak learning rate; each encoder multiplies it by its own ``lr_multiplier``.
        weight_decay: of AdamW, on matrices; vectors (biases, norms) are not decayed.
        warmup: fraction of the steps in which the rate rises from 0; it then falls to 0 along a cosine.
        protocol: how to evaluate; by default the protocol of the data (labels or captions).
    """

    switchable: ClassVar[frozenset[str]] = IRRELEVANT
    """Options that a trained model may be used with in another setting than it was trained with."""

    def __init__(
        self,
        image: Encoder | None = None,
        text: Encoder | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        protocol: CaptionProtocol | LabelProtocol | None = None,
    ) -> None:
        super().__init__()
        self.image = TimmImageEncoder() if image is None else image
        self.text = ScratchTextEncoder() if text is None else text
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.protocol = protocol
        self._encoded: dict[str, list[tuple[Tensor, Embeddings]]] = {"image": [], "text": [], "probe": []}

    # --- what a method is -------------------------------------------------------------------------------------------

    def encode_image(self, images: Inputs) -> Embeddings:
        """Embeddings `[B, ...]` of a batch from the image encoder's processor."""
        raise NotImplementedError

    def encode_text(self, tokens: Inputs) -> Embeddings:
        """Embeddings `[B, ...]` of a batch from the text encoder's processor."""
        raise NotImplementedError

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        """Scores `[Ni, Nt]` of every image with every text: the cosine of the pooled vectors."""
        return normalize(image.pooled, dim=-1) @ normalize(text.pooled, dim=-1).T

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss, a scalar, of a batch of pairs."""
        raise NotImplementedError

    def adapt(self, corpus: Corpus) -> None:
        """Fit to the training part of a corpus whatever depends on it: vocabulary, feature width, number of labels.

        Raises:
            InputError: the method or an encoder does not go together with the corpus.
        """
        if corpus.images is None:
            raise InputError(f"{corpus.name}: this copy has no images, so there is nothing to match")
        self.image.fit(corpus.images, corpus.train)
        self.text.fit(corpus.texts, corpus.texts_of(corpus.train))

    def adapt_to_state(self, state: Mapping[str, Tensor]) -> None:
        """Make the layers that ``adapt`` would make, with the sizes of a checkpoint's ``state_dict``."""

    # --- what methods share -----------------------------------------------------------------------------------------

    def encode_pairs(self, batch: Batch) -> tuple[Embeddings, Embeddings, Tensor]:
        """Image embeddings, text embeddings and positives, bool `[B, B]`, of a training batch.

        B spans all devices, so that a loss sees the same negatives on one device or on many.
        """
        image = gather_embeddings(self, self.encode_image(batch["image"]))
        text = gather_embeddings(self, self.encode_text(batch["text"]))
        labels = gather_rows(self, batch["labels"]) if "labels" in batch else None
        return image, text, positives(gather_rows(self, batch["image_index"]), labels)

    @property
    def pretraining(self) -> str:
        """Pretraining class of the method: the highest of its two encoders."""
        return max((self.image.pretraining, self.text.pretraining), key=PRETRAINING.index)

    @property
    def inductive(self) -> bool:
        """Whether every test item is encoded without the others; other methods are shown but not ranked."""
        return True

    @property
    def evaluated_by(self) -> CaptionProtocol | LabelProtocol:
        """The protocol option, or the protocol of the data."""
        return self.protocol or protocol_for(self.data.corpus)

    @property
    def data(self) -> CorpusDataModule:
        """The trainer's datamodule."""
        return cast(CorpusDataModule, self.trainer.datamodule)  # type: ignore[attr-defined]

    def training_labels(self, corpus: Corpus) -> Tensor:
        """Labels that the training images are trained with (corrupted ones included), float32 `[N, C]`.

        Raises:
            InputError: the corpus has no labels.
        """
        if corpus.labels_trained_with is None:
            raise InputError(
                f"{corpus.name}: has no labels, and {type(self).__name__} needs labels; use a dataset with labels"
            )
        return torch.from_numpy(corpus.labels_trained_with[corpus.train]).float()

    # --- a trained method on items of one's own ---------------------------------------------------------------------

    def encode_images(self, images: Sequence[Any], batch_size: int = 64) -> ImageEmbeddings:
        """Embeddings of photographs, or of ready-made features where the image encoder reads these.

        Args:
            images: paths, PIL images, or feature arrays `[D]` or `[T, D]`.
            batch_size: items encoded at once.

        Raises:
            InputError: there are none, or a file is missing or is not an image.
        """
        items = [_image_item(item) for item in images]
        return ImageEmbeddings(**vars(self._encode_items(self.image, self.encode_image, items, batch_size)))

    def encode_texts(self, texts: Sequence[Any], batch_size: int = 64) -> TextEmbeddings:
        """Embeddings of strings, or of ready-made features where the text encoder reads these.

        Args:
            texts: strings, or feature arrays `[D]` or `[T, D]`.
            batch_size: items encoded at once.

        Raises:
            InputError: there are none.
        """
        items = [_feature_item(item) for item in texts]
        return TextEmbeddings(**vars(self._encode_items(self.text, self.encode_text, items, batch_size)))

    @torch.no_grad()
    def rank(self, queries: Embeddings, gallery: Embeddings) -> Ranking:
        """The gallery ranked for every query by the method's own score.

        Args:
            queries: of ``encode_images`` or ``encode_texts``.
            gallery: of the other of the two.

        Raises:
            InputError: not one of images and one of texts.
        """
        kinds = [isinstance(items, ImageEmbeddings) for items in (queries, gallery)]
        if kinds[0] == kinds[1] or not all(isinstance(x, ImageEmbeddings | TextEmbeddings) for x in (queries, gallery)):
            raise InputError("rank: give the result of encode_images and that of encode_texts, in either order")
        asked, searched = queries.to(self.device), gallery.to(self.device)
        scores = self.score(asked, searched) if kinds[0] else self.score(searched, asked).T
        ranked = scores.float().cpu().sort(dim=1, descending=True, stable=True)
        return Ranking(ranked.indices, ranked.values)

    @torch.no_grad()
    def _encode_items(
        self, encoder: Encoder, encode: Callable[[Inputs], Embeddings], items: Sequence[Any], batch_size: int
    ) -> Embeddings:
        if not items:
            raise InputError(f"{type(self).__name__}: nothing to encode; give at least one item")
        training, processor = self.training, encoder.processor()
        self.eval()
        try:
            starts = range(0, len(items), batch_size)
            batches = (processor(items[start : start + batch_size], False) for start in starts)
            return Embeddings.cat([encode(move_data_to_device(batch, self.device)).to("cpu") for batch in batches])
        finally:
            self.train(training)

    # --- Lightning --------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Adapt to the data, encode with frozen encoders what the stage needs, and tell the loaders what to read."""
        data, corpus = self.data, self.data.corpus
        self.adapt(corpus)
        if stage == "fit":
            images = np.union1d(corpus.train, data.stage("val").images)
        else:
            images = data.stage("val" if stage == "validate" else "test").images
        device = self.trainer.strategy.root_device
        loaded = encode_corpus(corpus, (self.image, self.text), (images, corpus.texts_of(images)), device)
        probes = None
        if stage == "test" and is_encoded_once(self.text, corpus.texts) and len(data.probes):
            probes = encode_once(self.text, data.probes.strings, np.arange(len(data.probes)), device)
        processors = processor_of(self.image, loaded.images), processor_of(self.text, loaded.texts)
        data.attach(Sources(loaded, *processors, probes))

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, map_location: Any = "cpu", **options: Any) -> Self:  # type: ignore[override]
        """The method that a checkpoint describes, with its weights; code in the file is never run.

        Args:
            checkpoint_path: of ``itmbench fit`` or of a cell.
            map_location: where the tensors go.
            **options: none: a checkpoint has its own.

        Raises:
            InputError: it is not a checkpoint, does not say how it was built, is of another class than this one or its
                subclasses, or options are given.
        """
        if wrong := sorted(set(options) - {"strict", "weights_only"}):
            raise InputError(f"{cls.__name__}: {wrong[0]} is given; a checkpoint is loaded with its own options only")
        content = read_checkpoint(checkpoint_path, map_location)
        if not content.get(HYPER_PARAMETERS):
            raise InputError(
                f"{checkpoint_path}: does not say how its method was built; use one that this version has written"
            )
        model = build(content[HYPER_PARAMETERS])
        if not isinstance(model, cls):
            raise InputError(
                f"{checkpoint_path}: holds a {type(model).__name__}, no {cls.__name__}; load it as what it is"
            )
        model.on_load_checkpoint(content)
        model.load_state_dict(content["state_dict"])
        return model

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class and options as plain values, from which `itmbench.load` and ``load_from_checkpoint`` rebuild it."""
        with contextlib.suppress(InputError):  # an argument of a foreign class: such a checkpoint needs its config
            checkpoint[HYPER_PARAMETERS] = self.options

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that were trained with other options, and make room for them.

        Raises:
            InputError: the options differ; names them.
        """
        trained = checkpoint.get(HYPER_PARAMETERS)
        if trained and (wrong := differences(trained, self.options, self.switchable)):
            raise InputError(
                f"{type(self).__name__}: the checkpoint was trained with {'; '.join(wrong[:5])}; "
                "use it with its own options"
            )
        self.adapt_to_state(checkpoint["state_dict"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.training_loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["image_index"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._encode(batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._encode(batch)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Embeddings]:
        """Corpus rows `[B]` and embeddings of a batch of images (loader 0) or texts (loader 1)."""
        if "image" in batch:
            return batch["index"], self.encode_image(batch["image"])
        return batch["index"], self.encode_text(batch["text"])

    def on_validation_epoch_end(self) -> None:
        self._evaluate("val")

    def on_test_epoch_end(self) -> None:
        self._evaluate("test")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights.

        Raises:
            InputError: the shapes differ: other options, or data with other labels or features.
        """
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            wrong = [line.strip() for line in str(error).splitlines()[1:]]
            raise InputError(
                f"{type(self).__name__}: the checkpoint does not fit ({textwrap.shorten('; '.join(wrong), 300)}); give "
                "the options that it was trained with, and data with as many labels and features"
            ) from error

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine decay, stepped every batch."""
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise InputError(
                "the learning rate schedule needs a last step: set trainer.max_epochs or trainer.max_steps"
            )
        # The fused kernel is several times faster on a CPU, but Lightning cannot clip its gradients in mixed precision.
        fused = not self.trainer.precision.endswith("-mixed")
        optimizer = torch.optim.AdamW(self._parameter_groups(), lr=self.lr, fused=fused)
        warmup = max(1, round(self.warmup * steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    # --- details ----------------------------------------------------------------------------------------------------

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Trained weights by learning rate and decay."""
        multiplier = {id(p): e.lr_multiplier for e in (self.image, self.text) for p in e.parameters()}
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                key = (self.lr * multiplier.get(id(parameter), 1.0), self.weight_decay if parameter.ndim > 1 else 0.0)
                groups.setdefault(key, []).append(parameter)
        return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]

    def _encode(self, batch: Batch) -> None:
        index, embeddings = self.predict_step(batch, 0)
        embeddings = embeddings.compact()
        if "probe" in batch:
            self._encoded["probe"].append((index * len(RULES) + batch["probe"], embeddings))
        else:
            self._encoded["image" if "image" in batch else "text"].append((index, embeddings))

    def _evaluate(self, stage: str) -> None:
        """Evaluate all that was encoded, log it as ``{stage}/...`` and hand it to the callbacks that ask for it."""
        encoded, self._encoded = self._encoded, {"image": [], "text": [], "probe": []}
        if self.trainer.sanity_checking or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        tables = self.tables(encoded, stage)
        listeners = [each for each in self.trainer.callbacks if isinstance(each, EvaluationCallback)]  # type: ignore[attr-defined]
        for listener in listeners:
            listener.on_encoded(self, stage, tables.images, tables.texts)
        evaluation = self.evaluate(tables, stage)
        for listener in listeners:
            listener.on_evaluated(self, stage, evaluation)
        metrics = evaluation.metrics
        self.log_dict({f"{stage}/{key}": value for key, value in metrics.items()}, rank_zero_only=True)
        self.log(f"{stage}/objective", metrics[self.evaluated_by.objective], prog_bar=True)

    def tables(self, encoded: dict[str, list[tuple[Tensor, Embeddings]]], stage: str) -> "Tables":
        """What ``predict_step`` returned for the images, texts and probes of a stage, in corpus order."""
        images = self.data.stage(stage).images
        return Tables(
            self.table(encoded["image"], images, stage),
            self.table(encoded["text"], self.data.corpus.texts_of(images), stage),
            self._probes(encoded["probe"]) if encoded["probe"] else None,
        )

    def evaluate(self, tables: "Tables", stage: str) -> Evaluation:
        """Evaluate a stage by the protocol; perturbed captions add their shares."""
        corpus, scorer = self.data.corpus, None if type(self).score is Matcher.score else self.score
        evaluation = self.evaluated_by.evaluate(corpus, stage, tables.images, tables.texts, scorer)
        if tables.probes is None:
            return evaluation
        shares = probe_shares(corpus, stage, tables.images, tables.texts, *tables.probes, scorer)
        return replace(evaluation, metrics=evaluation.metrics | shares)

    def table(self, parts: list[tuple[Tensor, Embeddings]], rows: Rows, stage: str) -> Embeddings:
        """The embeddings of some corpus rows, in their order, from batches in any order on any device.

        Args:
            parts: results of ``predict_step`` for every batch of this process.
            rows: corpus rows of one modality.
            stage: "val", "test" or "predict".

        Raises:
            InputError: some rows were not encoded.
        """
        index, embeddings = self._gather(parts)
        # Distributed samplers repeat some items: the first counts.
        position = torch.full((int(max(rows.max(), index.max())) + 1,), len(index), device=index.device)
        position.scatter_reduce_(0, index, torch.arange(len(index), device=index.device), "amin")
        found = position[torch.from_numpy(rows).to(index.device)]
        if bool((found == len(index)).any()):
            raise InputError(
                f"{stage}: {int((found == len(index)).sum())} of {len(rows)} items were not encoded; all are needed, "
                f"so leave trainer.limit_{stage}_batches unset"
            )
        return embeddings[found]

    def _probes(self, parts: list[tuple[Tensor, Embeddings]]) -> tuple[Rows, Rows, Embeddings]:
        """Rule, true caption and embedding of every probe, once each (distributed samplers repeat some)."""
        keys, embeddings = self._gather(parts)
        found, first = np.unique(keys.cpu().numpy(), return_index=True)
        true, rules = np.divmod(found, len(RULES))
        return rules, true, embeddings[torch.from_numpy(first)]

    def _gather(self, parts: list[tuple[Tensor, Embeddings]]) -> tuple[Tensor, Embeddings]:
        """Rows and embeddings that all devices have encoded, as two tables of equal length."""
        index, embeddings = torch.cat([part for part, _ in parts]), Embeddings.cat([part for _, part in parts])
        # In `predict` the devices hold different numbers of items: repeat the last one until they are equal.
        most = int(gather_rows(self, torch.tensor([len(index)], device=index.device)).max())
        if most > len(index):
            filled = torch.arange(most, device=index.device).clamp(max=len(index) - 1)
            index, embeddings = index[filled], embeddings[filled]
        return gather_rows(self, index), gather_embeddings(self, embeddings)


@dataclass(frozen=True)
class Tables:
    """Embeddings of an evaluated stage.

    Args:
        images: of the stage's images, in corpus order.
        texts: of their texts, image by image.
        probes: rule `[P]`, corpus row of the true caption `[P]` and embeddings of the perturbed captions; None where
            there are none.
    """

    images: Embeddings
    texts: Embeddings
    probes: tuple[Rows, Rows, Embeddings] | None = None

    def map(self, change: Callable[[Embeddings], Embeddings]) -> "Tables":
        """The same tables with every table of embeddings changed."""
        probes = None if self.probes is None else (*self.probes[:2], change(self.probes[2]))
        return Tables(change(self.images), change(self.texts), probes)


def _image_item(item: Any) -> Any:
    if isinstance(item, str | PurePath):
        return ImageFiles(Path(), [str(item)], np.zeros(1, np.int64))[0]
    return item.convert("RGB") if isinstance(item, Image.Image) else _feature_item(item)


def _feature_item(item: Any) -> Any:
    """A feature array as a corpus gives it, with no mask; other items as they are."""
    return (np.asarray(item, np.float32), None) if isinstance(item, np.ndarray | Tensor) else item
