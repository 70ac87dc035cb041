"""The text encoders: from scratch with a learned vocabulary, and pretrained from a folder."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained import minilm
from safetensors.torch import load_file, save_file

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
    assert (encoder.width, encoder.pretraining) == (384, "captions")  # Flickr30K is among its training data
    vectors = torch.nn.functional.normalize(
        encode(encoder, ["a dog runs on the beach", "a puppy is running by the sea", "stock prices fell in London"]),
        dim=-1,
    )
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\ndatasets:\n- wikipedia\n- snli\n---\n# A model", "captions"),
        ("---\ndatasets: [bookcorpus, embedding-data/coco_captions]\n---\n", "captions"),
        ("---\ndatasets: [bookcorpus, wikipedia, multi_nli]\n---\nNot for captions.", "unimodal"),
        ("---\ndatasets: [bookcorpus\n", "unimodal"),
        ("A model without a card, of captions", "unimodal"),
        (None, "unimodal"),
    ],
)
def test_a_model_card_that_names_captions_sets_the_pretraining_class(
    card: str | None, expected: str, tmp_path: Path
) -> None:
    shutil.copytree(minilm(), tmp_path / "model")
    (tmp_path / "model" / "README.md").unlink()
    if card is not None:
        (tmp_path / "model" / "README.md").write_text(card)
    assert PretrainedTextEncoder(str(tmp_path / "model")).pretraining == expected


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded") as error:
        PretrainedTextEncoder(str(tmp_path))
    assert "\n" not in str(error.value)


def broken_bert(folder: Path, change: Callable[[dict[str, torch.Tensor]], object] = lambda weights: None) -> str:
    """A copy of a pretrained folder with changed weights."""
    shutil.copytree(minilm(), folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def test_weights_that_do_not_fit_and_lost_tokenizers_are_refused(tmp_path: Path) -> None:
    def lose_a_layer(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if "layer.3." in name]:
            del weights[name]

    def wrap(weights: dict[str, torch.Tensor]) -> None:
        renamed = {f"module.{name}": value for name, value in weights.items()}
        weights.clear()
        weights.update(renamed)

    with pytest.raises(InputError, match=r"16 of its weights are missing \(encoder\.layer\.3"):
        PretrainedTextEncoder(broken_bert(tmp_path / "fewer", lose_a_layer))
    with pytest.raises(InputError, match=r"weights are missing \(embeddings"):
        PretrainedTextEncoder(broken_bert(tmp_path / "wrapped", wrap))
    short = Path(broken_bert(tmp_path / "short"))
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] - 1}))
    with pytest.raises(InputError, match=r"config\.json has fewer layers than the weights"):
        PretrainedTextEncoder(str(short))
    for size in (100_000, 100, 0):
        os.truncate(short / "model.safetensors", size)
        with pytest.raises(InputError, match="cannot be loaded"):
            PretrainedTextEncoder(str(short))
    folder = Path(broken_bert(tmp_path / "mute"))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="the model knows 30522 tokens and the tokenizer"):
        PretrainedTextEncoder(str(folder))
    with pytest.raises(InputError, match="reads at most 512 tokens; set max_length to that or less"):
        PretrainedTextEncoder(minilm(), max_length=513)


def test_half_precision_folders_compute_in_single_precision(tmp_path: Path) -> None:
    def halve(weights: dict[str, torch.Tensor]) -> None:
        weights.update({k: v.half() if v.is_floating_point() else v for k, v in weights.items()})

    folder = Path(broken_bert(tmp_path / "half", halve))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16", "torch_dtype": "float16"}))
    half, whole = PretrainedTextEncoder(str(folder)).eval(), PretrainedTextEncoder(minilm()).eval()
    torch.testing.assert_close(encode(half, TEXTS), encode(whole, TEXTS), atol=2e-2, rtol=0)


def test_refuses_features() -> None:
    with pytest.raises(InputError, match="use FeatureEncoder"):
        scratch().fit(Features(np.zeros((2, 3))), np.array([0]))


def test_its_recipe_is_the_same_before_and_after_it_has_read() -> None:
    encoder = ScratchTextEncoder(width=32, depth=1, heads=2, vocab_size=50)
    encoder.fit(Strings(["a red square", "a blue one"]), np.arange(2))
    before = encoder.recipe()
    encoder.processor()(["a red square", "a"], False)  # sets padding and truncation in the tokenizer
    assert encoder.tokenizer.backend_tokenizer.padding
    assert encoder.recipe() == before
