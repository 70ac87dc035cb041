"""What is on the device while pairs are scored by their tokens: a tile, whatever the number of items."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from evaluation.test_protocol import labelled
from torch import Tensor

from itmbench.data.corpus import Corpus
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation import CaptionProtocol, LabelProtocol, caption_retrieval, scoring

TOKENS, WIDTH, TILE = 6, 4, 36


def with_tokens(corpus: Corpus) -> tuple[Embeddings, Embeddings]:
    """Embeddings of the test stage, some of them twice."""
    generator, images = torch.Generator().manual_seed(0), corpus.stages["test"].images
    tables = []
    for count in (len(images), len(corpus.texts_of(images))):
        tokens = torch.randn(count, TOKENS, WIDTH, generator=generator)
        tokens[count // 2 :: 7] = tokens[0]
        tables.append(Embeddings(tokens.mean(1), tokens, torch.ones(count, TOKENS, dtype=torch.bool)))
    return tables[0], tables[1]


def best_token(images: Embeddings, texts: Embeddings) -> Tensor:
    assert images.tokens is not None and texts.tokens is not None
    return torch.einsum("iad,jbd->ijab", images.tokens.float(), texts.tokens.float()).flatten(2).amax(2)


@pytest.mark.parametrize(
    "protocol",
    [
        CaptionProtocol(),
        CaptionProtocol(folds=3),
        LabelProtocol(),
        CaptionProtocol(shortlist=12),
        LabelProtocol(shortlist=12),
    ],
    ids=["captions", "folds", "labels", "shortlist", "label shortlist"],
)
def test_no_more_than_a_tile_is_copied_or_brought_to_the_device(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = replace(labelled(), train=np.arange(30))
    images, texts = with_tokens(corpus)
    expected = protocol.evaluate(corpus, "test", images, texts, best_token)
    moved: list[int] = []
    bring, pick = Embeddings.on_one_device, Embeddings.__getitem__

    def brought(self: Embeddings) -> Embeddings:
        if self.tokens is not None:
            moved.append(len(self))
        return bring(self)

    def copied(self: Embeddings, rows: slice | Tensor) -> Embeddings:
        if self.tokens is not None and isinstance(rows, Tensor):
            moved.append(len(rows))
        return pick(self, rows)

    monkeypatch.setattr(Embeddings, "on_one_device", brought)
    monkeypatch.setattr(Embeddings, "__getitem__", copied)
    monkeypatch.setattr(scoring, "_SCORER_TILE", TILE)
    monkeypatch.setattr(scoring, "_CHUNK", 8 * (TOKENS * WIDTH + WIDTH + TOKENS))
    found = protocol.evaluate(corpus, "test", images, texts, best_token)
    assert found.metrics == pytest.approx(expected.metrics, abs=1e-12)
    assert moved and max(moved) <= TILE < len(images)


def test_tiles_of_many_items_have_sides_that_processors_multiply_fast() -> None:
    widths: list[int] = []

    def counting(images: Embeddings, texts: Embeddings) -> Tensor:
        widths.append(len(texts))
        return images.pooled @ texts.pooled.T

    images, owner = torch.randn(100, 2), np.arange(5_000) // 50
    caption_retrieval(images, torch.randn(5_000, 2), owner, scorer=counting)
    assert {width % 64 for width in widths} == {0, 5_000 % max(widths) % 64}
    assert len(set(widths)) == 2
