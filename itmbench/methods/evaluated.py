"""A method under evaluation: a stage is encoded on all devices, measured by the protocol, and handed to callbacks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from itmbench.data.corpus import Rows
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.perturb import RULES
from itmbench.encoders import Embeddings
from itmbench.encoders.embeddings import require_embeddings
from itmbench.encoders.table import EmbeddingTable
from itmbench.errors import InputError
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.probe import probe_shares
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol, protocol_for
from itmbench.evaluation.ranks import shared_among_ranks
from itmbench.evaluation.scoring import Scorer
from itmbench.methods.distributed import gather_embeddings, gather_rows
from itmbench.methods.trained import TRAINED_ON, Modality, Trained

Parts = list[tuple[Tensor, Embeddings]]
"""Corpus rows `[B]` and embeddings of batches in any order, on any device."""


@dataclass(frozen=True)
class Tables:
    """Embeddings of an evaluated stage."""

    images: Embeddings  # of the stage's images, in corpus order
    texts: Embeddings  # of their texts, image by image
    probes: tuple[Rows, Rows, Embeddings] | None = None  # rules `[P]`, rows of the true captions `[P]`, perturbed ones

    def map(self, change: Callable[[Embeddings, Modality], Embeddings]) -> "Tables":
        """The same tables with every table of embeddings changed."""
        probes = None if self.probes is None else (*self.probes[:2], change(self.probes[2], "text"))
        return Tables(change(self.images, "image"), change(self.texts, "text"), probes)


class EvaluationCallback(L.Callback):
    """A callback that is also handed the embeddings of every evaluated stage, and the evaluation."""

    def on_encoded(self, model: Trained, stage: str, images: Embeddings, texts: Embeddings) -> None:
        """Called before evaluation with the embeddings of the stage, in corpus order; on every device."""

    def on_evaluated(self, model: Trained, stage: str, evaluation: Evaluation) -> None:
        """Called after evaluation; on every device."""


class KeepEvaluation(EvaluationCallback):
    """Keeps the last evaluation.

    Attributes:
        evaluation: None until a stage has been evaluated.
    """

    def __init__(self) -> None:
        self.evaluation: Evaluation | None = None

    def on_evaluated(self, model: Trained, stage: str, evaluation: Evaluation) -> None:
        self.evaluation = evaluation


class Evaluated(Trained):
    """A method that Lightning evaluates on the stages of a datamodule."""

    protocol: CaptionProtocol | LabelProtocol | None
    """How to evaluate; None for the protocol of the data."""
    scorer: Scorer | None
    """How pairs are scored; None for the cosine of the pooled vectors."""

    def __init__(self) -> None:
        super().__init__()
        self._encoded: dict[str, Any] = {}

    @property
    def evaluated_by(self) -> CaptionProtocol | LabelProtocol:
        """The protocol option, or the protocol of the data."""
        return self.protocol or protocol_for(self.data.corpus)

    @property
    def data(self) -> CorpusDataModule:
        """The trainer's datamodule."""
        return cast(CorpusDataModule, self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[TRAINED_ON] = self.data.corpus.name

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._encode(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._encode(batch, "test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Embeddings]:
        """Corpus rows `[B]` and embeddings of a batch of images (loader 0) or texts (loader 1)."""
        items = self.encode_image(batch["image"]) if "image" in batch else self.encode_text(batch["text"])
        return batch["index"], require_embeddings(items, self)

    def on_validation_epoch_end(self) -> None:
        self._evaluate("val")

    def on_test_epoch_end(self) -> None:
        self._evaluate("test")

    def _encode(self, batch: dict[str, Any], stage: str) -> None:
        """Encode a batch of a stage and keep it, with those of the other devices, until all are evaluated."""
        index, embeddings = self.predict_step(batch, 0)
        if self.trainer.sanity_checking:
            return
        embeddings = embeddings.compact()
        if "probe" in batch:
            self._encoded.setdefault("probe", []).append((index * len(RULES) + batch["probe"], embeddings))
            return
        modality = "image" if "image" in batch else "text"
        if modality not in self._encoded:
            self._encoded[modality] = EmbeddingTable(self._rows(stage)[modality])
        self._encoded[modality].append((gather_rows(self, index), gather_embeddings(self, embeddings)))

    def _rows(self, stage: str) -> dict[str, Rows]:
        """Corpus rows of the images and texts of a stage."""
        images = self.data.stage(stage).images
        return {"image": images, "text": self.data.corpus.texts_of(images)}

    def _evaluate(self, stage: str) -> None:
        """Evaluate all that was encoded, log it as ``{stage}/...`` and hand it to the callbacks that ask for it."""
        encoded, self._encoded = self._encoded, {}
        if self.trainer.sanity_checking or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        tables = self.tables(encoded, stage)
        del encoded
        listeners = [callback for callback in self.trainer.callbacks if isinstance(callback, EvaluationCallback)]  # type: ignore[attr-defined]
        for listener in listeners:
            listener.on_encoded(self, stage, tables.images, tables.texts)
        evaluation = self.evaluate(tables, stage)
        for listener in listeners:
            listener.on_evaluated(self, stage, evaluation)
        metrics = evaluation.metrics
        self.log_dict({f"{stage}/{key}": value for key, value in metrics.items()}, rank_zero_only=True)
        self.log(f"{stage}/objective", metrics[self.evaluated_by.objective])

    def tables(self, encoded: Mapping[str, Any], stage: str) -> Tables:
        """The images, texts and probes of a stage, each as for ``table``, in corpus order."""
        rows = self._rows(stage)
        return Tables(
            self.table(encoded["image"], rows["image"], stage),
            self.table(encoded["text"], rows["text"], stage),
            self._probes(encoded["probe"]) if encoded.get("probe") else None,
        )

    def evaluate(self, tables: Tables, stage: str) -> Evaluation:
        """Evaluate a stage by the protocol; perturbed captions add their shares."""
        corpus = self.data.corpus
        with shared_among_ranks(self.trainer.world_size > 1):
            evaluation = self.evaluated_by.evaluate(corpus, stage, tables.images, tables.texts, self.scorer)
            if tables.probes is None:
                return evaluation
            shares = probe_shares(corpus, stage, tables.images, tables.texts, *tables.probes, self.scorer)
        return replace(evaluation, metrics=evaluation.metrics | shares)

    def table(self, parts: EmbeddingTable | Parts, rows: Rows, stage: str) -> Embeddings:
        """The embeddings of some corpus rows, in their order.

        Args:
            parts: a table of these rows, or results of ``predict_step`` for every batch of this process, in any order.
            rows: corpus rows of one modality.
            stage: "val", "test", "train" or "predict".

        Raises:
            InputError: some rows were not encoded.
        """
        if isinstance(parts, EmbeddingTable):
            table = parts
        else:
            index, embeddings = self._gather(parts)
            table = EmbeddingTable(rows, embeddings.pooled.device)
            table.append((index, embeddings))
        if table.missing:
            raise InputError(
                f"{stage}: {table.missing} of {len(rows)} items were not encoded; all are needed, "
                f"so leave trainer.limit_{stage}_batches unset"
            )
        return table.embeddings()

    def encode_training(
        self, rows: Mapping[Modality, Rows], change: Callable[[Embeddings, Modality], Embeddings]
    ) -> dict[Modality, Embeddings]:
        """What ``change`` makes of the encoders' output for corpus rows; every device encodes its share."""
        precision, rank, devices = self.trainer.precision_plugin, self.global_rank, self.trainer.world_size
        tables: dict[Modality, Embeddings] = {}
        with torch.no_grad(), precision.forward_context():
            for modality, wanted in rows.items():
                parts = []
                share = wanted[rank::devices] if len(wanted) >= devices else wanted
                for batch in self.data.items_dataloader(modality, share):
                    batch = move_data_to_device(precision.convert_input(batch), self.device)
                    parts.append((batch["index"], change(getattr(self, modality)(batch[modality]), modality)))
                tables[modality] = self.table(parts, wanted, "train")
        return tables

    def _probes(self, parts: Parts) -> tuple[Rows, Rows, Embeddings]:
        """Rule, true caption and embedding of every probe, once each (distributed samplers repeat some)."""
        keys, embeddings = self._gather(parts)
        found, first = np.unique(keys.cpu().numpy(), return_index=True)
        true, rules = np.divmod(found, len(RULES))
        return rules, true, embeddings[torch.from_numpy(first)]

    def _gather(self, parts: Parts) -> tuple[Tensor, Embeddings]:
        """Rows and embeddings that all devices have encoded, as two tables of equal length."""
        index, embeddings = torch.cat([part for part, _ in parts]), Embeddings.cat([part for _, part in parts])
        # In `predict` the devices hold different numbers of items: repeat the last one until they are equal.
        most = int(gather_rows(self, torch.tensor([len(index)], device=index.device)).max())
        if most > len(index):
            filled = torch.arange(most, device=index.device).clamp(max=len(index) - 1)
            index, embeddings = index[filled], embeddings[filled]
        return gather_rows(self, index), gather_embeddings(self, embeddings)
