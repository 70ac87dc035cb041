"""Perturbed captions through the test loop: a method that reads only the words, one that reads their order."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from toy import COLOURS, GROUNDS, ToyData, evaluation_of, toy_encoders, trainer

from itmbench.encoders import Embeddings
from itmbench.methods.base import Batch
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.runner.cost import Meter

PROBES = {"test/probe/word_order", "test/probe/nouns", "test/probe/attributes"}


class Reader(DualEncoder):
    """Knows what every picture shows, and reads captions by rules instead of a network."""

    order = True

    def encode_text(self, tokens: Any) -> Embeddings:
        tokenizer: Any = self.text.tokenizer
        texts = tokenizer.batch_decode(tokens["input_ids"], skip_special_tokens=True)
        return Embeddings(torch.stack([self.read(text.split()) for text in texts]))

    def read(self, words: list[str]) -> torch.Tensor:
        """One-hot colour of the square and of the ground; without an order, whatever colours there are."""
        square, ground = torch.zeros(8), torch.zeros(8)
        names = [*COLOURS, *GROUNDS]
        found = [names.index(word) for word in words if word in names]
        sentence = (words[:1] == ["a"] and words[2:3] == ["square"]) or words[1:2] == ["behind"]
        if not self.order:
            square[found] = ground[found] = 1
        elif sentence and len(found) == 2:
            first, second = found if words[0] == "a" else found[::-1]
            square[first] = ground[second] = 1
        return torch.cat([square, ground])

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[torch.Tensor, Embeddings]:
        if "image" not in batch:
            return super().predict_step(batch, batch_idx, dataloader_idx)
        truth = [self.read(str(self.data.corpus.texts[2 * row]).split()) for row in batch["index"].tolist()]
        return batch["index"], Embeddings(torch.stack(truth))


class Contrary(Reader):
    """Scores the other way round."""

    def score(self, image: Embeddings, text: Embeddings) -> torch.Tensor:
        return -super().score(image, text)


def evaluated(folder: Path, order: bool, kind: type[Reader] = Reader) -> dict[str, float]:
    model = kind(dim=32, **toy_encoders())  # type: ignore[arg-type]
    model.order = order
    return dict(trainer(folder).test(model, ToyData(str(folder)), verbose=False)[0])


def test_a_reader_of_the_order_is_told_from_a_reader_of_the_words(tmp_path: Path) -> None:
    reader, bag = evaluated(tmp_path, order=True), evaluated(tmp_path, order=False)
    assert reader["test/rSum"] == 600 and bag["test/rSum"] > 400
    assert reader["test/probe/attributes"] == 1 and reader["test/probe/nouns"] == 1
    assert reader["test/probe/word_order"] > 0.8  # some orders say the same
    assert [bag[key] for key in sorted(PROBES)] == [0, 0, 0]


def test_the_score_of_the_method_decides(tmp_path: Path) -> None:
    assert evaluated(tmp_path, order=True, kind=Contrary)["test/probe/nouns"] == 0


def test_no_probes_in_validation_nor_with_labels(tmp_path: Path) -> None:
    model = DualEncoder(dim=32, **toy_encoders())  # type: ignore[arg-type]
    fit = trainer(tmp_path)
    evaluation = evaluation_of(fit, model, ToyData(str(tmp_path), labels=True))
    assert not [key for key in evaluation.metrics if "probe" in key]
    validated = fit.validate(model, ToyData(str(tmp_path)), verbose=False)[0]
    assert "val/rSum" in validated and not [key for key in validated if "probe" in key]


def test_ranks_do_not_depend_on_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = DualEncoder(dim=32, **toy_encoders())  # type: ignore[arg-type]
    data = ToyData(str(tmp_path))
    with_probes = trainer(tmp_path).test(model, data, verbose=False)[0]
    assert set(with_probes) >= PROBES
    monkeypatch.setattr(data, "test_dataloader", lambda: data.eval_dataloaders("test"))
    without = trainer(tmp_path).test(model, data, verbose=False)[0]
    assert without == {key: value for key, value in with_probes.items() if key not in PROBES}


def test_probes_that_samplers_of_several_devices_repeat_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, data = DualEncoder(dim=32, **toy_encoders()), ToyData(str(tmp_path))  # type: ignore[arg-type]
    once = trainer(tmp_path).test(model, data, verbose=False)[0]
    *loaders, probes = data.test_dataloader()
    some = torch.utils.data.DataLoader(probes.dataset, 5, sampler=[7, 3, 40, 3], collate_fn=probes.collate_fn)
    monkeypatch.setattr(data, "test_dataloader", lambda: [*loaders, some, probes, some])
    assert trainer(tmp_path).test(model, data, verbose=False)[0] == once


def test_probes_are_not_counted_as_texts(tmp_path: Path) -> None:
    class Batches(L.Callback):
        probes = 0

        def on_test_batch_end(self, trainer: L.Trainer, model: Any, outputs: Any, batch: Any, *args: Any) -> None:
            self.probes += len(batch.get("probe", ()))

    meter, batches = Meter(), Batches()
    model = DualEncoder(dim=32, **toy_encoders())  # type: ignore[arg-type]
    trainer(tmp_path, callbacks=[meter, batches]).test(model, ToyData(str(tmp_path)), verbose=False)
    assert batches.probes == 48
    assert meter.items == {"train": 0, "image": 16, "text": 32}
