"""What ``itmbench predict`` leaves: the embeddings of the test stage, as matrices that any program reads."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Matcher


class EmbeddingWriter(L.Callback):
    """Writes ``images.npy`` `[Ni, D]`, ``texts.npy`` `[Nt, D]`, ``text_to_image.npy`` `[Nt]`, and the ids, one a line.

    Args:
        folder: where to; below the trainer's ``default_root_dir`` unless absolute.
    """

    def __init__(self, folder: str = "embeddings") -> None:
        self.folder = folder
        self._parts: dict[str, list[tuple[Tensor, Embeddings]]] = {}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._parts = {"image": [], "text": []}
        try:
            Path(trainer.default_root_dir, self.folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--embeddings.folder {self.folder}: cannot be made ({error.strerror})") from None

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
        self._parts["image" if "image" in batch else "text"].append((index, Embeddings(embeddings.pooled)))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Matcher)
        corpus = pl_module.data.corpus
        images = pl_module.data.stage("test").images
        texts = corpus.texts_of(images)
        tables = [
            pl_module.table(self._parts[modality], rows, "predict").pooled.float().cpu().numpy()
            for modality, rows in (("image", images), ("text", texts))
        ]
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir, self.folder)
            np.save(folder / "images.npy", tables[0])
            np.save(folder / "texts.npy", tables[1])
            np.save(folder / "text_to_image.npy", np.searchsorted(images, corpus.text_to_image[texts]))
            _write_ids(folder / "image_ids.txt", [corpus.image_ids[row] for row in images])
            _write_ids(folder / "text_ids.txt", [corpus.text_ids[row] for row in texts])
            print(f"embeddings of {len(images):,} images and {len(texts):,} texts: {folder}")


def _write_ids(path: Path, ids: list[str]) -> None:
    path.write_text("".join(f"{each}\n" for each in ids), encoding="utf-8")
