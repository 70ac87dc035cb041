"""The text encoders: from scratch with a learned vocabulary, and pretrained from a folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained import minilm

from itmbench.data.corpus import Features, Strings
from itmbench.encoders import PretrainedTextEncoder, ScratchTextEncoder, TextEncoder
from itmbench.errors import InputError

TEXTS = ["A dog runs on the beach.", "two children play football", "a dog sleeps", "Children run on a beach", "café"]


def scratch(**options: int | float) -> ScratchTextEncoder:
    torch.manual_seed(0)
    encoder = ScratchTextEncoder(width=32, depth=1, heads=2, vocab_size=200, **options).eval()  # type: ignore[arg-type]
    encoder.fit(Strings(TEXTS), np.arange(len(TEXTS)))
    return encoder


def encode(encoder: TextEncoder, texts: list[str]) -> torch.Tensor:
    return encoder(encoder.processor()(texts, False)).pooled


def test_returns_pooled_tokens_and_mask_of_the_real_ones() -> None:
    encoder = scratch()
    inputs = encoder.processor()(TEXTS[:3], False)
    embeddings = encoder(inputs)
    assert embeddings.tokens is not None and embeddings.mask is not None
    assert embeddings.tokens.shape == (*inputs["input_ids"].shape, 32)
    assert torch.equal(embeddings.mask, inputs["attention_mask"].bool())
    mean = embeddings.tokens[2][embeddings.mask[2]].mean(0)
    torch.testing.assert_close(embeddings.pooled[2], mean)


def test_an_item_does_not_depend_on_the_padding_of_its_batch() -> None:
    encoder = scratch()
    torch.testing.assert_close(encode(encoder, TEXTS)[2], encode(encoder, ["a dog sleeps"])[0], atol=1e-5, rtol=0)


def test_vocabulary_is_learned_from_the_training_rows_alone() -> None:
    encoder = ScratchTextEncoder(width=32, depth=1, heads=2, vocab_size=200)
    encoder.fit(Strings(TEXTS), np.array([0, 2]))
    words = encoder.tokenizer.get_vocab()
    assert "beach" in words and "dog" in words
    assert "football" not in words
    assert len(words) <= 200


def test_the_same_texts_give_the_same_vocabulary() -> None:
    texts = [f"{a} {b} {c}" for a in ("red", "blue", "pink") for b in ("cube", "ball") for c in TEXTS]
    vocabularies = []
    for _ in range(5):
        encoder = ScratchTextEncoder(width=32, depth=1, heads=2, vocab_size=120)
        encoder.fit(Strings(texts), np.arange(len(texts)))
        vocabularies.append(encoder.tokenizer.get_vocab())
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)


def test_use_does_not_change_the_state() -> None:
    encoder = scratch()
    before = encoder.state_dict()["_extra_state"]
    encode(encoder, TEXTS)
    assert torch.equal(encoder.state_dict()["_extra_state"], before)


def test_a_checkpoint_carries_the_vocabulary(tmp_path: Path) -> None:
    trained = scratch()
    torch.save(trained.state_dict(), tmp_path / "text.pt")
    other = ScratchTextEncoder(width=32, depth=1, heads=2, vocab_size=200).eval()
    other.fit(Strings(["nothing in common"]), np.array([0]))
    other.load_state_dict(torch.load(tmp_path / "text.pt", weights_only=True))
    torch.testing.assert_close(encode(other, TEXTS), encode(trained, TEXTS))


def test_long_texts_are_cut() -> None:
    encoder = scratch(max_length=6)
    assert encoder.processor()(TEXTS, False)["input_ids"].shape[1] == 6
    assert scratch().processor()(TEXTS, False)["input_ids"].shape[1] > 6


def test_dropout_acts_in_training_only() -> None:
    batch = ["a dog", "a dog"]
    for dropout, equal in ((0.5, False), (0.0, True)):
        encoder = scratch(dropout=dropout)
        encoder.train()
        torch.manual_seed(0)
        vectors = encode(encoder, batch)
        assert torch.equal(vectors[0], vectors[1]) == equal
        encoder.eval()
        vectors = encode(encoder, batch)
        assert torch.equal(vectors[0], vectors[1])


def test_a_pretrained_folder_knows_what_sentences_mean() -> None:
    encoder = PretrainedTextEncoder(minilm()).eval()
    assert (encoder.width, encoder.pretraining) == (384, "unimodal")
    vectors = torch.nn.functional.normalize(
        encode(encoder, ["a dog runs on the beach", "a puppy is running by the sea", "stock prices fell in London"]),
        dim=-1,
    )
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded") as error:
        PretrainedTextEncoder(str(tmp_path))
    assert "\n" not in str(error.value)


def test_refuses_features() -> None:
    with pytest.raises(InputError, match="use FeatureEncoder"):
        scratch().fit(Features(np.zeros((2, 3))), np.array([0]))
