"""What ``itmbench predict`` writes: the embeddings of the test stage, as matrices that any program reads."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from itmbench.data.corpus import Corpus, Rows
from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.files import naming
from itmbench.methods.base import Matcher


class EmbeddingWriter(L.Callback):
    """Writes the embeddings of the test images and texts in the layout of a feature folder.

    Files: ``images.npy`` `[Ni, D]`, ``texts.npy`` `[Nt, D]`, ``text_to_image.npy`` `[Nt]`, ``image_ids.txt`` and
    ``text_ids.txt`` (one a line), and ``labels.npy`` `[Ni, C]` if there are labels. If the gallery holds
    training images, as in label corpora, ``splits.json`` completes the folder, and ``FeatureFolder`` reads it.

    Args:
        folder: where to write; below the trainer's ``default_root_dir`` unless absolute.
        tokens: write tokens `[Ni, N, D]` and `[Nt, L, D]` in place of the pooled vectors, with ``image_mask.npy``
            `[Ni, N]` and ``text_mask.npy`` `[Nt, L]`.
    """

    def __init__(self, folder: str = "embeddings", tokens: bool = False) -> None:
        self.folder, self.tokens = folder, tokens
        self._parts: dict[str, list[tuple[Tensor, Embeddings]]] = {}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._parts = {"image": [], "text": []}
        folder = Path(trainer.default_root_dir, self.folder)
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise InputError(f"--embeddings.folder {folder}: exists and is not an empty folder; name another one")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=".").cleanup()
        except OSError as error:
            raise InputError(f"--embeddings.folder {folder}: cannot be made ({error.strerror})") from None

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        index, embeddings = outputs
        if self.tokens and embeddings.tokens is None:
            raise InputError(f"--embeddings.tokens: {type(pl_module).__name__} has pooled vectors only; leave it out")
        kept = embeddings.compact() if self.tokens else Embeddings(embeddings.pooled)
        self._parts["image" if "image" in batch else "text"].append((index, kept))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Matcher)
        corpus = pl_module.data.corpus
        images = pl_module.data.stage("test").images
        rows = {"image": images, "text": corpus.texts_of(images)}
        tables = {name: pl_module.table(self._parts[name], rows[name], "predict") for name in rows}
        if not trainer.is_global_zero:
            return
        place = Path(trainer.default_root_dir, self.folder)
        with naming(place), tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as temporary:
            folder = Path(temporary, "whole")
            folder.mkdir()
            for name, table in tables.items():
                values = table.pooled if table.tokens is None else table.tokens
                np.save(folder / f"{name}s.npy", values.float().cpu().numpy())
                if table.mask is not None:
                    np.save(folder / f"{name}_mask.npy", table.mask.cpu().numpy())
            np.save(folder / "text_to_image.npy", np.searchsorted(images, corpus.text_to_image[rows["text"]]))
            for name, ids in (("image", corpus.image_ids), ("text", corpus.text_ids)):
                lines = "".join(f"{ids[row]}\n" for row in rows[name])
                (folder / f"{name}_ids.txt").write_text(lines, encoding="utf-8")
            if corpus.labels is not None:
                np.save(folder / "labels.npy", corpus.labels[images])
            if len(np.intersect1d(corpus.train, images)):
                (folder / "splits.json").write_text(json.dumps(_splits(corpus, images)), encoding="utf-8")
            os.replace(folder, place)  # when complete
        what = "tokens" if self.tokens else "vectors"
        print(f"{what} of {len(images):,} images and {len(rows['text']):,} texts: {place}")
        if pl_module.scorer is not None:
            print(f"{type(pl_module).__name__} does not score pairs by the cosine of pooled vectors: use itmbench.load")


def _splits(corpus: Corpus, images: Rows) -> dict[str, list[int]]:
    """The splits of a corpus as places among some of its image rows, which are ascending."""
    val, test = corpus.stages["val"], corpus.stages["test"]
    rows = {"train": corpus.train, "val": val.queries, "query": test.queries, "gallery": test.gallery}
    places = {name: np.flatnonzero(np.isin(images, split)).tolist() for name, split in rows.items()}
    return {name: split for name, split in places.items() if split}
