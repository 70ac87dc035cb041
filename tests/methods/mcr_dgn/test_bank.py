"""The bank: what goes in and what never does, and that an empty one says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from toy import toy_corpus

from itmbench.methods.mcr_dgn.bank import Bank, bank_rows, pair_context


def test_rows_are_training_pairs_and_always_the_same(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path)
    images, texts = bank_rows(corpus, 40)
    assert len(images) == len(texts) == 40 == len(np.unique(images))
    assert (corpus.text_to_image[texts] == images).all() and np.isin(images, corpus.train).all()
    assert not np.isin(images, np.r_[corpus.stages["val"].queries, corpus.stages["test"].queries]).any()
    assert set(texts % 2) == {0, 1}  # not always an image's first text
    assert all(np.array_equal(a, b) for a, b in zip((images, texts), bank_rows(corpus, 40), strict=True))
    assert len(bank_rows(corpus, 10_000)[0]) == len(corpus.train)


def test_wrong_pairs_stand_in_the_bank_as_they_are_trained_with(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path)
    wrong = np.array([[0, 5], [1, 5], [10, 0], [11, 0]])
    images, texts = bank_rows(replace(corpus, wrong_pairs=wrong), 10_000)
    pairs = dict(zip(images.tolist(), texts.tolist(), strict=True))
    assert pairs[0] in (10, 11) and pairs[5] in (0, 1)


def unit(*shape: int) -> torch.Tensor:
    return normalize(torch.randn(*shape), dim=-1)


def test_context_is_that_of_its_pairs_and_made_anew_when_it_is_filled() -> None:
    torch.manual_seed(0)
    bank = Bank(pairs=10, nodes=3, dim=4)
    assert len(bank) == 0 and bank.context(2, "all") is None
    item, image, text = torch.arange(6) + 20, unit(6, 3, 4), unit(6, 3, 4)
    bank.fill(item, image, text)
    with torch.inference_mode():
        made = bank.context(2, "all")
    assert made is not None and bank.context(2, "all") is made and len(bank) == 6
    assert not made.nodes.vectors.is_inference()  # training may use it, too
    expected = pair_context(item, image, text, 2)
    assert torch.equal(made.nodes.vectors, expected.nodes.vectors) and torch.equal(made.nodes.item, expected.nodes.item)
    assert torch.equal(made.neighbours.node, expected.neighbours.node)
    bank.fill(item[:4], image[2:], text[2:])
    again = bank.context(2, "all")
    assert again is not None and again is not made and len(bank) == 4
    assert torch.equal(again.nodes.vectors[:3], image[2])


def test_a_checkpoint_holds_it_as_tensors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bank, other = (Bank(pairs=10, nodes=3, dim=4, keys=(5, 6)) for _ in range(2))
    bank.fill(torch.arange(6), unit(6, 3, 4), unit(6, 3, 4), (unit(6, 3, 5), unit(6, 3, 6)))
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    assert other.context(2, "all") is None
    other.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    made, expected = other.context(2, "all"), bank.context(2, "all")
    assert made is not None and expected is not None
    assert torch.equal(made.neighbours.node, expected.neighbours.node)
    assert made.keys[0].shape == (36, 5) and made.keys[1].shape == (36, 6)
    # Weights that are loaded over a filled bank replace what was found in it.
    other.load_state_dict(Bank(pairs=10, nodes=3, dim=4, keys=(5, 6)).state_dict())
    assert other.context(2, "all") is None
