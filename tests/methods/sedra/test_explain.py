"""Explanations of SEDRA add up to its score, and show the regions that change it."""

from typing import Any

import pytest
import torch
from toy import ToyData, toy_encoders

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Matcher
from itmbench.methods.explained import explain_pairs, own_items
from itmbench.methods.scan import SCAN
from itmbench.methods.sedra import SEDRA


def model_and_inputs(folder: Any, kind: Any = SEDRA, **options: Any) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    model, data = kind(8, **options, **toy_encoders()), ToyData(str(folder))
    corpus = data.corpus
    model.adapt(corpus)
    for weight in model.parameters():  # shares that differ from word to word
        weight.data += 0.3 * torch.randn_like(weight)
    model.eval()
    images = own_items(model, "image", [str(corpus.images.root / f"{row}.png") for row in range(3)])  # type: ignore[union-attr]
    return model, images, own_items(model, "text", ["red", str(corpus.texts[3]), str(corpus.texts[6])])


@pytest.mark.parametrize(
    "options", [{}, {"inter": "mean"}, {"paths": ["local"]}, {"paths": ["fused", "local"]}, {"words": False}]
)
def test_paths_and_words_add_up_to_the_score(options: dict[str, Any], tmp_path: Any) -> None:
    model, images, texts = model_and_inputs(tmp_path, **options)
    model.choose(0.3)
    found = explain_pairs(model, images, texts)
    with torch.no_grad():
        scores = model.score(model.encode_image(images.inputs), model.encode_text(texts.inputs)).diagonal()
    assert [pair.score for pair in found] == pytest.approx(scores.tolist(), abs=1e-4)
    for pair in found:
        assert list(pair.paths) == model.paths
        local = pair.local_scale * sum(word.share * word.found for word in pair.words)
        assert pair.paths["local"] == pytest.approx(local, abs=1e-4)
        assert sum(word.share for word in pair.words) == pytest.approx(1, abs=1e-5)
        for word in pair.words:
            assert len(word.regions) == 4 and word.whole + sum(word.regions) == pytest.approx(1, abs=1e-5)
    assert len({round(word.share, 4) for word in found[1].words}) > 3
    assert [word.word for word in found[0].words] == (
        ["red"] if options.get("words", True) else ["[mark]", "red", "[mark]"]
    )


@pytest.mark.parametrize("kind", [SEDRA, SCAN])
def test_mixed_precision_explains_the_score_that_ranks(kind: type[Matcher], tmp_path: Any) -> None:
    model, images, texts = model_and_inputs(tmp_path, kind=kind)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = explain_pairs(model, images, texts)
        embedded = model.encode_image(images.inputs), model.encode_text(texts.inputs)
    with torch.no_grad():
        scores = model.score(*embedded).diagonal()
    assert [pair.score for pair in found] == pytest.approx(scores.tolist(), abs=1e-5)


def test_regions_are_the_gradient_of_what_a_word_finds(tmp_path: Any) -> None:
    """A region moved towards a word adds the word's share times the region's to the local path, and so for others."""
    model, images, texts = model_and_inputs(tmp_path)
    pair, region = explain_pairs(model, images, texts)[1], 3
    with torch.no_grad():
        image, text = model.encode_image(images.inputs)[1:2], model.encode_text(texts.inputs)[1:2]
        assert image.tokens is not None and text.tokens is not None and text.mask is not None
        words = text.tokens[0, text.mask[0], :-1]
        moved = Embeddings(image.pooled, image.tokens.clone(), image.mask)
        assert moved.tokens is not None
        moved.tokens[0, 1 + region, :-1] += 1e-3 * words[2]
        gained = float(model.inter(moved, text) - model.inter(image, text)) / 1e-3
    towards = (words @ words[2]).tolist()  # how far each word's cosine with the region moves
    expected = [word.share * word.regions[region] * step for word, step in zip(pair.words, towards, strict=True)]
    assert gained == pytest.approx(sum(expected), rel=0.02) and abs(gained) > 1e-3


def test_without_a_local_path_there_is_nothing_to_show(tmp_path: Any) -> None:
    model, images, texts = model_and_inputs(tmp_path, paths=["global"])
    with pytest.raises(InputError, match=r"no local path to show \(paths: global\)"):
        explain_pairs(model, images, texts)
