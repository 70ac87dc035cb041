"""A dataset small enough to train on in seconds: a square of one colour on a ground of another, and captions of it."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from PIL import Image

from itmbench.data.corpus import Corpus, ImageFiles, Stage, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.encoders import ScratchTextEncoder, TimmImageEncoder
from itmbench.evaluation.evaluation import Evaluation
from itmbench.methods.base import Matcher
from itmbench.methods.evaluated import KeepEvaluation

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 220), "yellow": (230, 220, 30)}
GROUNDS = {"black": (10, 10, 10), "white": (245, 245, 245), "pink": (250, 150, 190), "cyan": (60, 220, 220)}
KINDS = [(colour, ground) for colour in COLOURS for ground in GROUNDS]

TOY_MODEL: dict[str, Any] = {
    "class_path": "DualEncoder",
    "init_args": {
        "dim": 32,
        "lr": 0.003,
        "image": {
            "class_path": "TimmImageEncoder",
            "init_args": {
                "image_size": 32,
                "train_crop": 1.0,
                "model_args": {"patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2},
            },
        },
        "text": {
            "class_path": "ScratchTextEncoder",
            "init_args": {"width": 32, "depth": 1, "heads": 2, "vocab_size": 100},
        },
    },
}
"""The smallest method that learns the toy, as a config names it."""


def toy_arguments(folder: Path, *more: str, model: str = "DualEncoder") -> list[str]:
    """Options of ``itmbench fit`` and the like for the toy, written below the folder; later ones win."""
    trainer = ["accelerator=cpu", "max_epochs=20", "enable_progress_bar=false", "enable_model_summary=false"]
    arguments = TOY_MODEL["init_args"]
    return [
        *("--data=toy.ToyData", f"--data.root={folder / 'toy'}", f"--model={model}"),
        *(f"--model.{name}={json.dumps(value)}" for name, value in arguments.items()),
        *(f"--trainer.{option}" for option in trainer),
        f"--trainer.default_root_dir={folder}",
        *more,
    ]


class ToyData(CorpusDataModule):
    """16 kinds of picture; every split holds some of each, with two captions a picture.

    Args:
        root: folder that the pictures are written into.
        labels: give the colours of square and ground as labels, which makes it a label corpus.
        copies: pictures of each kind to train on.
    """

    def __init__(
        self, root: str, labels: bool = False, copies: int = 6, batch_size: int = 16, num_workers: int | None = 0
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=8, num_workers=num_workers)
        self.root, self.labels, self.copies = Path(root), labels, copies

    def read(self) -> Corpus:
        return toy_corpus(self.root, self.labels, self.copies)


def toy_corpus(root: Path, labels: bool = False, copies: int = 6) -> Corpus:
    """The corpus of ``ToyData``; pictures are 32 x 32 PNG files."""
    generator = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    kinds = [kind for _ in range(copies + 2) for kind in KINDS]
    names, texts, hot = [], [], np.zeros((len(kinds), len(COLOURS) + len(GROUNDS)), np.uint8)
    for row, (colour, ground) in enumerate(kinds):
        top, left = generator.integers(0, 17, 2)
        pixels = np.tile(np.array(GROUNDS[ground]), (32, 32, 1))
        pixels[top : top + 16, left : left + 16] = COLOURS[colour]
        noisy = (pixels + generator.integers(-10, 11, pixels.shape)).clip(0, 255).astype(np.uint8)
        names.append(f"{row}.png")
        if not (root / names[-1]).exists():  # another process may be reading it
            Image.fromarray(noisy).save(root / names[-1])
        texts += [f"a {colour} square on a {ground} ground", f"{ground} behind, {colour} in front"]
        hot[row, list(COLOURS).index(colour)] = hot[row, len(COLOURS) + list(GROUNDS).index(ground)] = 1
    train, val, test = np.split(np.arange(len(kinds)), [copies * len(KINDS), (copies + 1) * len(KINDS)])
    stages = {"val": Stage(val, train if labels else val), "test": Stage(test, np.r_[train, val] if labels else test)}
    return Corpus(
        name="toy",
        image_ids=names,
        images=ImageFiles(root, names, np.array([(root / name).stat().st_size for name in names])),
        text_ids=[f"t{row}" for row in range(len(texts))],
        texts=Strings(texts),
        text_to_image=np.repeat(np.arange(len(kinds)), 2),
        train=train,
        stages=stages,
        labels=hot if labels else None,
        label_names=[*COLOURS, *GROUNDS] if labels else (),
    )


def toy_encoders() -> dict[str, TimmImageEncoder | ScratchTextEncoder]:
    """The smallest encoders that learn the toy: keyword arguments of a method."""
    image, text = (TOY_MODEL["init_args"][name]["init_args"] for name in ("image", "text"))
    return {"image": TimmImageEncoder(**image), "text": ScratchTextEncoder(**text)}


def trainer(folder: Path, **options: Any) -> L.Trainer:
    """A trainer on the CPU that shows, logs and keeps nothing."""
    off = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    quiet: dict[str, Any] = dict.fromkeys(off, False) | {"num_sanity_val_steps": 0, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, **(quiet | options))


def trained(folder: Path, model: Matcher, data: CorpusDataModule, steps: int = 2) -> Path:
    """The checkpoint of a model after a few steps."""
    fit = trainer(folder, max_steps=steps)
    fit.fit(model, data)
    fit.save_checkpoint(folder / "best.ckpt", weights_only=True)
    return folder / "best.ckpt"


def printed_metrics(text: str) -> dict[str, float]:
    """What ``itmbench test`` prints, with shares as fractions."""
    lines = (line.split() for line in text.splitlines() if line.startswith("  ") and "chosen" not in line)
    return {name: float(value) / (100 if more[:1] == ["%"] else 1) for name, value, *more in lines}


def evaluation_of(trainer: L.Trainer, model: Matcher, data: CorpusDataModule) -> Evaluation:
    """The evaluation of the test stage."""
    kept = KeepEvaluation()
    trainer.callbacks.append(kept)  # type: ignore[attr-defined]
    trainer.test(model, data, verbose=False)
    trainer.callbacks.remove(kept)  # type: ignore[attr-defined]
    assert kept.evaluation is not None
    return kept.evaluation
