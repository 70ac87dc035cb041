import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from evaluation import reference
from evaluation.test_protocol import embed, labelled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import HashProtocol, LabelProtocol, hamming, hamming_retrieval, label_retrieval
from itmbench.evaluation.recording import Recording, Sample, keeping

CUTOFFS = (1, 3, 8, 50)


def brute_force(
    queries: Tensor, gallery: Tensor, gains: Tensor, normaliser: str, ties: str
) -> tuple[dict[str, float], list[float]]:
    """All metrics and every query's average precision, one pair and one bit at a time."""
    rows, radii = [], range(queries.shape[1] + 1)
    for code, gain in zip(queries.tolist(), gains.tolist(), strict=True):
        distances = [sum((a > 0) != (b > 0) for a, b in zip(code, other, strict=True)) for other in gallery.tolist()]
        scores = [float(-distance) for distance in distances]
        metrics = {"mAP": reference.average_precision(scores, gain, None, "all", ties)}
        metrics["optimistic/mAP"] = reference.average_precision(scores, gain, None, "all", "optimistic")
        for k in CUTOFFS:
            metrics[f"mAP@{k}"] = reference.average_precision(scores, gain, k, normaliser, ties)
            metrics[f"P@{k}"] = reference.precision(scores, gain, k, ties)
            metrics[f"R@{k}"] = reference.recall(scores, gain, k, ties)
        levels = enumerate(reference.interpolated(scores, gain, ties))
        metrics |= {f"P@r{level / 10}": value for level, value in levels}
        for radius in radii:
            near = [bool(of) for of, distance in zip(gain, distances, strict=True) if distance <= radius]
            metrics[f"P@h{radius}"] = sum(near) / len(near) if near else 0.0
            metrics[f"R@h{radius}"] = sum(near) / sum(map(bool, gain)) if any(gain) else 0.0
        rows.append(metrics)
    means = {key: math.fsum(row[key] for row in rows) / len(rows) for key in rows[0]}
    means["queries_without_relevant"] = sum(not any(gain) for gain in gains.tolist())
    return means, [row["mAP"] for row in rows]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 7),
    st.integers(1, 40),
    st.sampled_from([1, 5, 8, 16, 64, 70, 128, 300]),
    st.sampled_from([1, 3, 9, 70]),
    st.sampled_from(["retrieved", "min", "all", "mith"]),
    st.sampled_from(["pessimistic", "optimistic"]),
)
def test_codes_are_ranked_as_one_pair_at_a_time(
    seed: int, queries: int, gallery: int, bits: int, labels: int, normaliser: Any, ties: Any
) -> None:
    generator = torch.Generator().manual_seed(seed)
    flips = (torch.rand(gallery, bits, generator=generator) < 0.1).float()  # near each other, and alike where short
    asked = torch.randint(-2, 3, (queries, bits), generator=generator).float()
    found = asked[torch.randint(queries, (gallery,), generator=generator)] * (1 - 2 * flips)
    asks, has = ((torch.rand(n, labels, generator=generator) < 1.5 / labels).int() for n in (queries, gallery))
    expected, _ = brute_force(asked, found, asks @ has.T, normaliser, ties)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_QUERIES", 3)
        measured = hamming_retrieval(asked, found, asks, has, CUTOFFS, normaliser, ties)
    assert measured == pytest.approx(expected, abs=1e-12)


def test_long_galleries_lose_no_digit() -> None:
    """The sums are differences of harmonic numbers; floats of codes of 64 bits have exact cosines."""
    generator = torch.Generator().manual_seed(0)
    asked, found = (torch.randn(n, 64, generator=generator).sign() for n in (3, 60_000))
    asks, has = ((torch.rand(n, 24, generator=generator) < 0.15).float() for n in (3, 60_000))
    expected = label_retrieval(asked, found, asks, has, CUTOFFS)
    measured = hamming_retrieval(asked, found, asks, has, CUTOFFS)
    shared = expected.keys() & measured.keys()
    assert {key for key in expected if key not in shared} == {f"NDCG@{k}" for k in CUTOFFS}
    assert {key: measured[key] for key in shared} == pytest.approx({key: expected[key] for key in shared}, abs=1e-11)


def test_equal_codes_lose_and_zero_is_no_bit() -> None:
    query, gallery = torch.tensor([[0.3, -0.2]]), torch.tensor([[1.0, 0.0], [1.0, -1.0], [9.0, -3.0]])
    labels = torch.tensor([[1]]), torch.tensor([[1], [0], [0]])
    assert hamming_retrieval(query, gallery, *labels)["mAP"] == pytest.approx(1 / 3)
    assert hamming_retrieval(query, gallery, *labels, ties="optimistic")["mAP"] == 1


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic"])
@pytest.mark.parametrize("train", [np.arange(30), np.arange(45), np.arange(10), np.arange(0)])
def test_the_protocol_measures_codes_in_both_directions_and_among_unseen_items(train: Any, ties: Any) -> None:
    corpus = dataclasses.replace(labelled(), train=train)
    images, texts = embed(corpus)
    codes = Embeddings(images.pooled.sign()), Embeddings(texts.pooled.sign())
    protocol = HashProtocol(cutoffs=CUTOFFS, ties=ties, bits=6)
    found = protocol.evaluate(corpus, "test", images, texts)
    assert found.metrics == protocol.evaluate(corpus, "test", *codes).metrics
    assert corpus.labels is not None
    owner = corpus.text_to_image[corpus.texts_of(np.arange(10, 60))]
    values = []
    for side, (asked, searched, asks, searches) in {
        "i2t": (codes[0], codes[1], np.arange(10, 60) >= 45, owner < 45),
        "t2i": (codes[1], codes[0], owner >= 45, np.arange(10, 60) < 45),
    }.items():
        of = {len(codes[0]): np.arange(10, 60), len(codes[1]): owner}
        gains = torch.from_numpy(
            corpus.labels[of[len(asked)]][asks].astype(int) @ corpus.labels[of[len(searched)]][searches].T.astype(int)
        )
        queries, gallery = asked.pooled[torch.from_numpy(asks)], searched.pooled[torch.from_numpy(searches)]
        metrics, ap = brute_force(queries, gallery, gains, "retrieved", ties)
        assert found.metrics[f"optimistic/{side}/mAP"] == pytest.approx(metrics.pop("optimistic/mAP"), abs=1e-12)
        for key, value in metrics.items():
            assert found.metrics[f"{side}/{key}"] == pytest.approx(value, abs=1e-12)
        values += ap
        new = torch.from_numpy(~np.isin(of[len(searched)][searches], train))
        if len(train) and new.any():
            metrics, _ = brute_force(queries, gallery[new], gains[:, new], "retrieved", ties)
            assert found.metrics[f"unseen/{side}/mAP"] == pytest.approx(metrics["mAP"], abs=1e-12)
        else:
            assert "unseen/mAP" not in found.metrics
    assert found.per_query["ap"] == pytest.approx(np.array(values), abs=1e-12)
    floats = LabelProtocol(cutoffs=CUTOFFS, ties=ties).evaluate(corpus, "test", images, texts)
    for key, column in floats.per_query.items():
        assert key == "ap" or list(found.per_query[key]) == list(column)
    assert found.metrics["chance/mAP"] == floats.metrics["chance/mAP"]


def test_examples_are_ranked_by_codes() -> None:
    corpus = labelled()
    images, texts = embed(corpus)
    recording = Recording(Sample.of(corpus), corpus, corpus, examples=True)
    keeping(HashProtocol(bits=6), recording).evaluate(corpus, "test", images, texts)
    assert recording.made is not None
    stage, signs = corpus.stages["test"], [items.pooled.sign() for items in (images, texts)]
    place = {id_: row for row, id_ in enumerate(corpus.image_ids[row] for row in stage.images)}
    for query in recording.made.queries:
        if query.side == "t2i":
            continue
        searched = corpus.texts_of(stage.images)
        shared = torch.from_numpy(np.isin(corpus.text_to_image[searched], stage.gallery))
        nearest = float((signs[1][shared] @ signs[0][place[query.id]]).max()) / 6
        assert query.results[0].score == pytest.approx(nearest, abs=1e-6)


def test_the_protocol_is_another_one_for_every_length() -> None:
    assert HashProtocol(bits=16).as_dict() == {
        "name": "hash-retrieval", "version": 1, "objective": "mAP", "cutoffs": [1, 5, 10, 50, 100, 500],
        "normaliser": "retrieved", "ties": "pessimistic", "bits": 16,
    }  # fmt: skip
    assert HashProtocol(bits=16) != HashProtocol(bits=32)


def test_what_cannot_be_compared_is_refused() -> None:
    labels = torch.ones(1, 2), torch.ones(1, 2)
    with pytest.raises(InputError, match=r"^codes of 16 and 8 bits; give both the same length$"):
        hamming_retrieval(torch.ones(1, 16), torch.ones(1, 8), *labels)
    with pytest.raises(InputError, match="query_labels have 2 labels and gallery_labels 3"):
        hamming_retrieval(torch.ones(1, 8), torch.ones(1, 8), labels[0], torch.ones(1, 3))
    with pytest.raises(InputError, match="embedding of gallery item 0: NaN"):
        hamming_retrieval(torch.ones(1, 8), torch.full((1, 8), torch.nan), *labels)
    corpus = labelled()
    with pytest.raises(InputError, match="leave the scorer out"):
        HashProtocol().evaluate(corpus, "test", *embed(corpus), scorer=lambda a, b: a.pooled @ b.pooled.T)
