import math
from typing import Any

import numpy as np
import pytest
import torch
from evaluation import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import Scorer, caption_retrieval, grid, scoring


def numbered(n: int) -> Tensor:
    """Embeddings that are only numbers of items, for scorers that look scores up."""
    return torch.arange(n, dtype=torch.float32)[:, None]


def table_scorer(table: Tensor) -> Scorer:
    def scorer(images: Embeddings, texts: Embeddings) -> Tensor:
        return table[images.pooled[:, 0].long()][:, texts.pooled[:, 0].long()]

    return scorer


def expected(scores: Tensor, owner: list[int], ks: tuple[int, ...], ties: str) -> dict[str, float]:
    rows, columns = scores.tolist(), scores.T.tolist()
    i2t = [reference.best_rank(row, [float(o == i) for o in owner], ties) for i, row in enumerate(rows)]
    t2i = [
        reference.best_rank(column, [float(i == owner[j]) for i in range(len(rows))], ties)
        for j, column in enumerate(columns)
    ]
    metrics: dict[str, float] = {}
    for direction, ranks in (("i2t", i2t), ("t2i", t2i)):
        metrics |= {f"{direction}/R@{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in {1, 5, 10, *ks}}
        metrics[f"{direction}/MedR"] = math.floor(np.median([rank - 1 for rank in ranks])) + 1
        metrics[f"{direction}/MeanR"] = sum(ranks) / len(ranks)
    metrics["rSum"] = 100 * sum(metrics[f"{side}/R@{k}"] for side in ("i2t", "t2i") for k in (1, 5, 10))
    return metrics


@st.composite
def scored_pairs(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    """A table of a few different scores, and an owner for every text; some images own nothing."""
    images, texts = draw(st.integers(1, 9)), draw(st.integers(1, 20))
    scores = draw(st.lists(st.integers(-2, 2), min_size=images * texts, max_size=images * texts))
    owner = draw(st.lists(st.integers(0, images - 1), min_size=texts, max_size=texts))
    return torch.tensor(scores).view(images, texts) / 2, owner


@settings(max_examples=100, deadline=None)
@given(scored_pairs(), st.sampled_from(["pessimistic", "optimistic"]), st.integers(1, 40))
def test_a_scorer_gives_what_the_definition_gives(pairs: tuple[Tensor, list[int]], ties: Any, tile: int) -> None:
    scores, owner = pairs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_SCORER_TILE", tile)
        found = caption_retrieval(
            numbered(len(scores)), numbered(len(owner)), owner, (1, 3), table_scorer(scores), ties
        )
    assert found == pytest.approx(expected(scores, owner, (1, 3), ties))


# Unit vectors whose products are exact in float32, so that equal cosines are equal to the last bit.
AXES = torch.cat([torch.eye(4), -torch.eye(4), torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5]])])


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["pessimistic", "optimistic"]), st.integers(1, 40))
def test_cosines_give_what_the_definition_gives(data: st.DataObject, ties: Any, tile: int) -> None:
    pick = st.integers(0, len(AXES) - 1)
    images = AXES[data.draw(st.lists(pick, min_size=1, max_size=9))]
    texts = AXES[data.draw(st.lists(pick, min_size=1, max_size=20))]
    owner = data.draw(st.lists(st.integers(0, len(images) - 1), min_size=len(texts), max_size=len(texts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(scoring._COSINE_TILE, "cpu", tile)
        found = caption_retrieval(3 * images, 7 * texts, owner, (1, 3), None, ties)
    assert found == pytest.approx(expected(images @ texts.T, owner, (1, 3), ties))


@pytest.mark.parametrize("dimensions", [1, 3, 31, 64, 257, 512])
@pytest.mark.parametrize(("images", "captions"), [(2, 1), (3, 5), (17, 5), (127, 3), (333, 5), (1001, 5)])
@pytest.mark.parametrize("tile", [1 << 20, 60_013])
def test_a_collapsed_model_finds_nothing(
    monkeypatch: pytest.MonkeyPatch, images: int, captions: int, dimensions: int, tile: int
) -> None:
    monkeypatch.setitem(scoring._COSINE_TILE, "cpu", tile)
    one = torch.randn(dimensions, generator=torch.Generator().manual_seed(dimensions))
    owner = torch.arange(images).repeat_interleave(captions)
    arguments = one.expand(images, -1), one.expand(images * captions, -1), owner
    found = caption_retrieval(*arguments)
    assert found["i2t/R@1"] == found["t2i/R@1"] == 0
    assert found["i2t/MedR"] == found["i2t/MeanR"] == (images - 1) * captions + 1
    assert found["t2i/MedR"] == found["t2i/MeanR"] == images
    assert caption_retrieval(*arguments, ties="optimistic")["rSum"] == 600


@pytest.mark.parametrize("tile", [1 << 20, 5_003, 501])
@pytest.mark.parametrize("ties", ["pessimistic", "optimistic"])
def test_repeated_items_tie_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, tile: int, ties: Any) -> None:
    monkeypatch.setitem(scoring._COSINE_TILE, "cpu", tile)
    generator = torch.Generator().manual_seed(3)
    image_kinds, text_kinds = torch.randn(41, 97, generator=generator), torch.randn(67, 97, generator=generator)
    image_at = torch.randint(41, (203,), generator=generator)
    text_at = torch.randint(67, (611,), generator=generator)
    owner = torch.randint(203, (611,), generator=generator)
    unit = torch.nn.functional.normalize
    scores = (unit(image_kinds.double()) @ unit(text_kinds.double()).T).float()[image_at][:, text_at]
    found = caption_retrieval(image_kinds[image_at], text_kinds[text_at], owner, ties=ties)
    assert found == pytest.approx(expected(scores, owner.tolist(), (1, 5, 10), ties))


@pytest.mark.parametrize("kept", [0, 1 << 25])
def test_a_scorer_that_does_not_repeat_itself_cannot_beat_itself(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(grid, "_KEPT", kept)
    generator = torch.Generator().manual_seed(0)

    def noisy(images: Embeddings, texts: Embeddings) -> Tensor:
        right = images.pooled == texts.pooled.T
        return right + 1e-3 * torch.rand(len(images), len(texts), generator=generator)

    found = caption_retrieval(numbered(50), numbered(50), torch.arange(50), scorer=noisy)
    assert found["t2i/MeanR"] == found["i2t/MeanR"] == 1


def test_no_tile_grows_with_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = {"dot": 0, "scorer": 0}
    dot = scoring._dot

    def watched(images: Embeddings, texts: Embeddings, kind: str = "dot") -> Tensor:
        largest[kind] = max(largest[kind], len(images) * len(texts))
        return dot(images, texts)

    monkeypatch.setattr(scoring, "_dot", watched)
    monkeypatch.setitem(scoring._COSINE_TILE, "cpu", 1 << 12)
    monkeypatch.setattr(scoring, "_SCORER_TILE", 1 << 10)
    for images, texts in ((200, 1000), (3, 9000), (9000, 3)):
        owner = torch.arange(texts) % images
        tables = torch.randn(images, 2), torch.randn(texts, 2), owner
        caption_retrieval(*tables)
        caption_retrieval(*tables, scorer=lambda a, b: watched(a, b, "scorer"))
    assert 0.9 < largest["dot"] / (1 << 12) <= 1
    assert 0.9 < largest["scorer"] / (1 << 10) <= 1


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        ([0, 1], r"text_to_image has shape \[2\] for 3 texts"),
        ([0, 1, 2], "text 2 belongs to image 2; there are images 0 to 1"),
        ([0, -1, 1], "text 1 belongs to image -1"),
    ],
)
def test_a_wrong_map_is_one_clear_line(owner: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        caption_retrieval(torch.eye(2), torch.ones(3, 2), owner)


def test_nan_names_the_image_although_repeated_images_are_scored_once() -> None:
    texts = torch.eye(4)
    images = torch.eye(4)[[0, 0, 1, 2]]

    def scorer(image_tile: Embeddings, text_tile: Embeddings) -> Tensor:
        scores = image_tile.pooled @ text_tile.pooled.T
        return scores.masked_fill((image_tile.pooled[:, 2] == 1)[:, None], math.nan)

    with pytest.raises(InputError, match="scores of image 3: NaN"):
        caption_retrieval(images, texts, [0, 1, 2, 3], scorer=scorer)
    images = images.clone()
    images[1, 1] = math.nan
    with pytest.raises(InputError, match="embedding of image 1: NaN"):
        caption_retrieval(images, texts, [0, 1, 2, 3])
