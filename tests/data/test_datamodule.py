"""Batches: what is in them, wrong pairs in training, and perturbed captions in a test."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from layouts import write_regions
from toy import ToyData, toy_corpus

from itmbench.cli.main import main
from itmbench.data.corpus import Corpus
from itmbench.data.datamodule import CorpusDataModule, Sources
from itmbench.data.datasets import PrecomputedRegions
from itmbench.data.perturb import RULES, caption_probes
from itmbench.errors import InputError


class Data(CorpusDataModule):
    def __init__(self, root: Path, labels: bool = False, **kwargs: Any) -> None:
        super().__init__(batch_size=16, eval_batch_size=7, num_workers=0, **kwargs)
        self.root, self.labels = root, labels
        # Batches that show what is in them: letters of a text, the mean colour of an image.
        self.attach(Sources(self.corpus, self.pixels, self.letters))

    def read(self) -> Corpus:
        return toy_corpus(self.root, self.labels)

    @staticmethod
    def pixels(images: Any, train: bool) -> dict[str, torch.Tensor]:
        return {"mean": torch.tensor(np.stack([np.asarray(image).mean((0, 1)) for image in images]))}

    @staticmethod
    def letters(texts: Any, train: bool) -> dict[str, torch.Tensor]:
        assert not isinstance(texts, str)
        return {"letters": torch.tensor([list(text.ljust(60).encode()) for text in texts])}


def words(batch: dict[str, Any]) -> list[str]:
    return [bytes(row).decode().rstrip() for row in batch["text"]["letters"].tolist()]


def trained_pairs(data: Data) -> dict[int, int]:
    pairs: dict[int, int] = {}
    for _ in range(2):  # two epochs hold the same pairs
        for batch in data.train_dataloader():
            for image, text in zip(batch["image_index"].tolist(), batch["text_index"].tolist(), strict=True):
                assert pairs.setdefault(text, image) == image
    return pairs


@pytest.mark.parametrize("labels", [False, True])
def test_wrong_pairs_are_trained_and_nothing_else_changes(tmp_path: Path, labels: bool) -> None:
    clean, noisy = Data(tmp_path, labels), Data(tmp_path, labels, shuffled_captions=0.25)
    corpus = noisy.corpus
    pairs = trained_pairs(noisy)
    wrong = {text for text, image in pairs.items() if corpus.text_to_image[text] != image}
    assert len(pairs) == 192 and len(wrong) == 48
    assert trained_pairs(clean) == {text: corpus.text_to_image[text] for text in pairs}
    assert {pairs[text] for text in wrong} <= set(corpus.train)
    assert corpus.fingerprint != clean.corpus.fingerprint
    assert [(c.what, c.found) for c in corpus.counts] == [("shuffled training captions", 48)]
    for batch in noisy.train_dataloader():
        for at, (image, text) in enumerate(zip(batch["image_index"], batch["text_index"], strict=True)):
            assert words(batch)[at] == corpus.texts[int(text)]
            assert corpus.images is not None
            mean = np.asarray(corpus.images[int(image)]).mean((0, 1))
            assert batch["image"]["mean"][at].tolist() == pytest.approx(mean.tolist())
            if labels:
                assert corpus.labels is not None
                assert batch["labels"][at].tolist() == corpus.labels[int(image)].tolist()
    for stage in ("val", "test"):
        for ours, theirs in zip(noisy.eval_dataloaders(stage), clean.eval_dataloaders(stage), strict=True):
            for one, other in zip(ours, theirs, strict=True):
                assert one["index"].tolist() == other["index"].tolist()


def test_wrong_labels_are_trained_and_evaluation_keeps_the_true_ones(tmp_path: Path) -> None:
    clean, noisy = Data(tmp_path, labels=True), Data(tmp_path, labels=True, corrupted_labels=0.25)
    corpus, true = noisy.corpus, clean.corpus.labels
    assert true is not None and corpus.labels is not None
    assert trained_pairs(noisy) == trained_pairs(clean)
    trained: dict[int, list[int]] = {}
    for batch in noisy.train_dataloader():
        trained |= dict(zip(batch["image_index"].tolist(), batch["labels"].tolist(), strict=True))
    wrong = [image for image, labels in trained.items() if labels != true[image].tolist()]
    assert len(trained) == 96 and len(wrong) == 24
    assert sorted(trained.values()) == sorted(true[list(trained)].tolist())
    assert (corpus.labels == true).all() and set(wrong) <= set(noisy.stage("test").gallery)
    assert corpus.fingerprint != clean.corpus.fingerprint
    assert [(c.what, c.found) for c in corpus.counts] == [("training images with wrong labels", 24)]


def test_both_kinds_of_noise_go_together(tmp_path: Path) -> None:
    data = Data(tmp_path, labels=True, shuffled_captions=0.25, corrupted_labels=0.5)
    assert [c.found for c in data.corpus.counts] == [48, 48]
    labels = data.corpus.labels_trained_with
    assert labels is not None
    for batch in data.train_dataloader():
        assert batch["labels"].tolist() == labels[batch["image_index"]].tolist()


@pytest.mark.parametrize("option", ["shuffled_captions", "corrupted_labels"])
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_what_is_no_share_is_refused(tmp_path: Path, option: str, share: float) -> None:
    with pytest.raises(InputError, match=f"^{option}: .* is not a share; give a number from 0 to 1$"):
        Data(tmp_path, False, **{option: share})


@pytest.mark.parametrize("option", ["shuffled_captions", "corrupted_labels"])
def test_every_dataset_takes_the_option(option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("captions", "flickr30k-tokens", "regions", "mirflickr25k", "nuswide", "dcmh", "flickr30k-mini"):
        command = ["data", "verify", name, f"--{option}=2"]
        assert main(command if "mini" in name else [*command, f"--root={tmp_path}"]) == 2
        assert f"{option}: 2.0 is not a share" in capsys.readouterr().err.strip().splitlines()[-1]


def test_perturbed_captions_are_in_a_test_of_captions_only(tmp_path: Path) -> None:
    data = Data(tmp_path)
    assert len(data.val_dataloader()) == len(data.predict_dataloader()) == 2
    assert len(Data(tmp_path, labels=True).test_dataloader()) == 2
    images, texts, probes = data.test_dataloader()
    assert all("probe" not in batch for loader in (images, texts) for batch in loader)
    found = [
        (rule, text, said)
        for batch in probes
        for rule, text, said in zip(batch["probe"].tolist(), batch["index"].tolist(), words(batch), strict=True)
    ]
    expected = caption_probes(data.corpus, data.stage("test").images)
    assert sorted(found) == sorted(
        zip(expected.rules.tolist(), expected.texts.tolist(), expected.strings.strings, strict=True)
    )
    assert len(found) == len(RULES) * 16
    assert [len(said) for _, _, said in found] == sorted(len(said) for _, _, said in found)


def test_devices_and_runners_share_the_loader_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itmbench.processors.processors", lambda: 16)
    data = ToyData(str(tmp_path), num_workers=None)
    trainer: Any = SimpleNamespace(num_devices=4)
    assert data.loaders() == 8
    data.trainer = trainer
    assert data.loaders() == 3
    data.runners = 2
    assert data.loaders() == 1
    data.num_workers = 5  # as the user says
    assert data.loaders() == 5


def test_one_process_reads_and_the_others_find_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_regions(tmp_path / "regions")
    PrecomputedRegions(root).prepare_data()
    monkeypatch.setattr(PrecomputedRegions, "read", lambda self: pytest.fail("read again"))
    assert len(PrecomputedRegions(root).corpus.image_ids) == 9
