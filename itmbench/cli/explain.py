"""``itmbench explain``: takes what ``itmbench test`` takes; what items look at, and whether that is what matters."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor
from torch.utils.data import DataLoader

from itmbench.cli.arguments import import_from_here
from itmbench.cli.fit import short_help
from itmbench.data.corpus import Corpus, Rows, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.logs import quiet
from itmbench.methods.base import Matcher
from itmbench.methods.mcr_dgn.bank import bank_rows
from itmbench.methods.mcr_dgn.explain import MODALITIES, Deletion, Seen, attached_to, deletion, explain
from itmbench.methods.mcr_dgn.module import MCRDGN
from itmbench.runner.lightning import MatcherCLI

SUMMARY = "Show which training items test items attend to in MCR-DGN's graph, and whether removing those edges hurts."
EXAMPLE = "itmbench explain --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt --items im1,t3"
OPTIONS = """\
  --items ID,…                       test images and texts to explain (default: three images and their first texts)
  --top 5                            training items shown for each
  --draws 3                          random draws of edges to compare the deletion with
  --out FILE                         JSON file to write everything to"""
FEW = 3
"""Query images that are explained, each with its first text, where none are named."""
SHOWN = 70
"""Most letters of a text on the screen."""


@dataclass(frozen=True)
class Explained:
    """A test item and what it looks at.

    Args:
        modality: "image" or "text".
        id: of the item.
        text: what it says; of an image, what its first text says; None where texts are no words.
        sees: training items, the most important first, with the same keys and their ``weight``.
    """

    modality: str
    id: str
    text: str | None
    sees: list[dict[str, Any]]


def run(command: str, arguments: Sequence[str]) -> int:
    """Explain items and measure the deletion gap.

    Returns:
        0.

    Raises:
        InputError: the method has no graph, an id is unknown, or the checkpoint was trained on other data.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(short_help(command, SUMMARY, EXAMPLE, OPTIONS))
        return 0
    import_from_here()
    ExplainCLI(["test", *arguments])
    return 0


class ExplainCLI(MatcherCLI):
    """LightningCLI's ``test`` with explanations in the place of the test; nothing is logged."""

    items: list[Explained]
    deletion: Deletion

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Arguments of its own."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--items", type=str, default="", help="ids of test images and texts, comma-separated")
        parser.add_argument("--top", type=int, default=5, help="most training items that are named for each")
        parser.add_argument("--draws", type=int, default=3, help="of random edges that are removed for comparison")
        parser.add_argument("--out", type=str, default="", help="JSON file to write all of it to")

    def before_instantiate_classes(self) -> None:
        """The trainer reads the checkpoint and tests nothing: no batch, no logger, no saved config, no progress bar."""
        super().before_instantiate_classes()
        self.save_config_callback = None
        trainer = self.config.test.trainer
        trainer.logger = trainer.enable_progress_bar = trainer.fast_dev_run = False
        trainer.limit_test_batches = 0

    def test(self, model: Matcher, datamodule: CorpusDataModule, verbose: bool, **options: Any) -> None:
        """What runs instead of the trainer's test."""
        if not isinstance(model, MCRDGN):
            raise InputError(f"explain: {type(model).__name__} has no graph to explain; give the config of an MCRDGN")
        if self.trainer.world_size > 1:
            raise InputError("explain: runs on one device; add --trainer.devices 1")
        asked = _asked(datamodule.corpus, self.config.test["items"])
        with quiet():
            self.trainer.test(model, datamodule=datamodule, verbose=False, **options)
        attached_to(model)  # says what is wrong before anything else goes wrong
        model.to(self.trainer.strategy.root_device).eval()
        with self.trainer.precision_plugin.forward_context():
            self.items = _explained(model, datamodule.corpus, asked, self.config.test.top)
            self.deletion = measured_deletion(model, datamodule, self.config.test.draws)

    def after_test(self) -> None:
        """Print it, and write it where that is asked for."""
        corpus, model, protocol = self.datamodule.corpus, self.model, self.model.evaluated_by
        print(f"{corpus.name}, test: what items look at among {len(model.bank):,} training pairs")
        if not model.graph_at_test:
            print("this checkpoint is tested without its graph: what follows is what the graph would do")
        for item in self.items:
            print(f"{item.modality} {item.id}{_quoted(item.text)}")
            for seen in item.sees:
                print(f"  {seen['weight']:.3f}  {seen['modality']:<5}  {seen['id']}{_quoted(seen['text'])}")
            if not item.sees:
                print("  nothing: no mutual neighbour in the bank")
        _print_deletion(self.deletion, protocol.objective)
        if self.config.test.out:
            content: dict[str, Any] = {
                "dataset": corpus.name,
                "fingerprint": corpus.fingerprint,
                "protocol": protocol.as_dict(),
                "graph_at_test": model.graph_at_test,
                "items": [asdict(item) for item in self.items],
                "deletion": asdict(self.deletion) | {"gap": self.deletion.gap, "spread": self.deletion.spread},
            }
            Path(self.config.test.out).write_text(json.dumps(content, indent=1), encoding="utf-8")


def measured_deletion(model: MCRDGN, data: CorpusDataModule, draws: int) -> Deletion:
    """Deletion curves of the protocol's objective on the test stage.

    Args:
        model: set up for the data, with a bank.
        data: whose test stage is measured.
        draws: of random edges.
    """
    index: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
    images, texts = (
        _batches(loader, modality, index[modality], model.device)
        for modality, loader in zip(MODALITIES, data.eval_dataloaders("test"), strict=True)
    )

    def quality(image: Embeddings, text: Embeddings) -> float:
        rows = {modality: torch.cat(parts) for modality, parts in index.items()}
        encoded = {"image": [(rows["image"], image)], "text": [(rows["text"], text)], "probe": []}
        return float(model.evaluate(model.tables(encoded, "test"), "test").metrics[model.evaluated_by.objective])

    return deletion(model, images, texts, quality, draws=draws)


def _batches(loader: DataLoader[Any], modality: str, index: list[Tensor], device: torch.device) -> Iterator[Inputs]:
    """Inputs of a loader on the device; corpus rows of each batch are added to the index."""
    for batch in loader:
        moved = move_data_to_device(batch, device)
        index.append(moved["index"])
        yield moved[modality]


def _asked(corpus: Corpus, ids: str) -> dict[str, list[int]]:
    """Rows by modality of the test items with these ids, in their order; an id may be an image's and a text's.

    Raises:
        InputError: there is no such item.
    """
    stage = corpus.stages["test"]
    if not ids:
        images = stage.queries[:FEW].tolist()
        return {"image": images, "text": [int(corpus.texts_of_image[row][0]) for row in images]}
    rows: dict[str, Rows] = {"image": stage.images, "text": corpus.texts_of(stage.images)}
    names = {"image": corpus.image_ids, "text": corpus.text_ids}
    known = {modality: {names[modality][row]: int(row) for row in rows[modality]} for modality in MODALITIES}
    asked: dict[str, list[int]] = {modality: [] for modality in MODALITIES}
    for each in ids.split(","):
        found = [modality for modality in MODALITIES if each in known[modality]]
        if not found:
            some = ", ".join([*list(known["image"])[:2], *list(known["text"])[:2]])
            raise InputError(f"--items {each}: no test image or text of {corpus.name} has this id; some are {some}")
        for modality in found:
            asked[modality].append(known[modality][each])
    return asked


def _explained(model: MCRDGN, corpus: Corpus, asked: dict[str, list[int]], top: int) -> list[Explained]:
    """What the asked items look at.

    Raises:
        InputError: the bank holds other rows than training on this corpus gives it.
    """
    held, texts = bank_rows(corpus, len(model.bank.item))
    if not np.array_equal(held, model.bank.item[: len(model.bank)].cpu()):
        raise InputError(f"explain: the checkpoint's bank is not of this {corpus.name}; give the data of its training")
    text_of = dict(zip(held.tolist(), texts.tolist(), strict=True))

    def named(seen: Seen) -> dict[str, Any]:
        row = text_of[seen.image]
        name = corpus.image_ids[seen.image] if seen.modality == "image" else corpus.text_ids[row]
        return {"modality": seen.modality, "id": name, "weight": seen.weight, "text": _words(corpus, row)}

    items = []
    for modality, rows in asked.items():
        inputs = model.data.batch(modality, np.asarray(rows, dtype=np.int64)) if rows else None
        found = explain(model, modality, move_data_to_device(inputs, model.device)) if inputs else []
        for row, seen in zip(rows, found, strict=True):
            image = modality == "image"
            name, text = (corpus.image_ids, corpus.texts_of_image[row][0]) if image else (corpus.text_ids, row)
            items.append(Explained(modality, name[row], _words(corpus, int(text)), [named(s) for s in seen[:top]]))
    return items


def _words(corpus: Corpus, text: int) -> str | None:
    return corpus.texts[text] if isinstance(corpus.texts, Strings) else None


def _quoted(text: str | None) -> str:
    if text is None:
        return ""
    return f'  "{text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"}"'


def _print_deletion(found: Deletion, objective: str) -> None:
    """The gap as one number, and its two curves from all edges to none."""
    random = [sum(values) / len(values) for values in zip(*found.random, strict=True)]
    print(
        f"deletion gap {found.gap:+.4f} {objective} (± {found.spread:.4f} by random draw): what it costs to remove the "
        "edges with the most attention, more than as many at random"
    )
    print("  edges removed  " + "".join(f"{share:>9.0%}" for share in (0, *found.shares, 1)))
    for name, curve in (("most attention", found.strongest), ("at random", random)):
        print(f"  {name:<15}" + "".join(f"{value:>9.4f}" for value in (found.whole, *curve, found.none)))
