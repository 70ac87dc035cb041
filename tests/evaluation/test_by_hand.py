"""The examples that docs/protocols.md works by hand; the scores are read from its tables."""

import dataclasses
import random
import re
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation.feature_corpus import feature_corpus
from torch import Tensor

from itmbench.data.corpus import Corpus
from itmbench.data.perturb import RULES
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation import CaptionProtocol, LabelProtocol, hamming_retrieval
from itmbench.evaluation.functional import average_precision, ranking_metrics
from itmbench.evaluation.label import label_queries
from itmbench.evaluation.probe import probe_shares
from itmbench.evaluation.shortlist import Shortlist

PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
HAND = PAGE[PAGE.index("\n## By hand") : PAGE.index("\n## Against other code")]
ROWS = [line.strip("|").split("|") for line in HAND.splitlines() if re.match(r"\| [ABC1-5] \|", line)]
SCORES = torch.tensor([[float(cell) for cell in row[1:]] for row in ROWS[:3]])
OWNER = np.array([0, 0, 1, 2])
POOLED = torch.tensor([[0.5, 0.1, 0.6], [0.3, 0.6, 0.1], [0.4, 0.7, 0.5], [0.4, 0.1, 0.6]])
"""Of the captions a1 to c1; of the images, unit vectors."""


def numbered(rows: int) -> Embeddings:
    """Embeddings whose tokens say which item they are."""
    vectors = torch.eye(rows) if rows == 3 else POOLED
    return Embeddings(vectors, torch.arange(rows).float().view(-1, 1, 1), torch.ones(rows, 1, dtype=torch.bool))


def scorer(images: Embeddings, texts: Embeddings) -> Tensor:
    """The table of the page."""
    assert images.tokens is not None and texts.tokens is not None
    return SCORES[images.tokens[:, 0, 0].long()][:, texts.tokens[:, 0, 0].long()]


def corpus(**changes: Any) -> Corpus:
    return dataclasses.replace(feature_corpus(np.eye(3, dtype=np.float32), POOLED.numpy(), OWNER), **changes)


def captions(protocol: CaptionProtocol, here: Corpus) -> dict[str, float]:
    return protocol.evaluate(here, "test", numbered(3), numbered(4), scorer).metrics


def exactly(found: dict[str, float], **expected: F | float) -> None:
    for key, value in expected.items():
        assert found[key.replace("_at_", "@").replace("__", "/")] == pytest.approx(float(value), abs=1e-12), key


def test_captions() -> None:
    found = captions(CaptionProtocol(), corpus())
    exactly(found, i2t__R_at_1=F(2, 3), i2t__R_at_5=1, i2t__MedR=1, i2t__MeanR=F(5, 3))
    exactly(found, t2i__R_at_1=F(3, 4), t2i__R_at_5=1, t2i__MeanR=F(5, 4))
    assert f"= {found['rSum']:.1f}." in HAND
    exactly(captions(CaptionProtocol(ties="optimistic"), corpus()), i2t__MeanR=F(4, 3))


def test_folds() -> None:
    assert captions(CaptionProtocol(folds=3), corpus())["folds/rSum"] == pytest.approx(600)


def test_shortlist() -> None:
    ranked = POOLED.argsort(dim=1, descending=True)
    assert ranked[0].tolist() == [2, 0, 1] and torch.equal(ranked[1:], SCORES.T.argsort(dim=1, descending=True)[1:])
    shortlist = Shortlist(numbered(3), numbered(4), scorer, 1, str)  # the protocol wants as many as the K of its R@K
    pairs = torch.stack([torch.from_numpy(OWNER), torch.arange(4)], dim=1)
    ranks = shortlist.ranks(pairs, "pessimistic")
    assert ranks[1].tolist() == [2, 2, 1, 1]
    assert shortlist.lost(pairs, ranks, "pessimistic", (1,))["shortlist/t2i/lost R@1"] == pytest.approx(1 / 4)


TRUTH = [np.array(rows) for rows in ([0], [0], [1, 2], [2])]


def test_complete_truth() -> None:
    found = captions(CaptionProtocol(), corpus(true_images=TRUTH))
    for side, precision, average in (("i2t/", F(2, 3), F(7, 12)), ("t2i/", F(3, 4), F(3, 4)), ("", F(17, 24), F(2, 3))):
        assert found[f"truth/{side}R-Precision"] == pytest.approx(float(precision))
        assert found[f"truth/{side}mAP@R"] == pytest.approx(float(average))
    per_query = CaptionProtocol().evaluate(corpus(true_images=TRUTH), "test", numbered(3), numbered(4), scorer)
    assert per_query.metrics["truth/i2t/R@1"] == pytest.approx(2 / 3)


def test_near_twins() -> None:
    twins = np.array([[0, 1], [1, 0]])
    found = captions(CaptionProtocol(), corpus(true_images=TRUTH, hard_negatives=twins))
    exactly(found, hard_negative_accuracy=F(2, 3))


def test_perturbed_captions() -> None:
    true, nouns, attributes = re.findall(r'"(A (?:man|shirt)[^"]*)"', HAND.replace("\n  ", " "))
    assert {RULES["nouns"](true, random.Random(seed)) for seed in range(9)} >= {nouns}
    assert RULES["attributes"](true, random.Random(0)) == attributes
    two = feature_corpus(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), [0, 1])
    images, rows = Embeddings(torch.eye(2)), np.array([0, 1])
    scores = torch.tensor([[0.5, 0.0], [0.0, 0.3]]), torch.tensor([[0.4, 0.0], [0.0, 0.3]])

    def look_up(images: Embeddings, texts: Embeddings) -> Tensor:
        """Texts of the corpus have the score of the first table, perturbed ones (twice as long) of the second."""
        perturbed = (texts.pooled.sum(1) > 1.5).long()
        both = torch.stack(scores)
        return both[perturbed, :, texts.pooled.argmax(1)].T[images.pooled.argmax(1)]

    probes = Embeddings(2 * torch.eye(2))
    found = probe_shares(two, "test", images, Embeddings(torch.eye(2)), np.array([1, 1]), rows, probes, look_up)
    assert found == {"probe/nouns": 0.5}


GAINS = torch.tensor([[int(row[2]) for row in ROWS[3:]]])
FALLING = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5]])


def test_labels() -> None:
    found = {key: float(value[0]) for key, value in ranking_metrics(FALLING, GAINS, cutoffs=(2,)).items()}
    exactly(found, AP=F(29, 36), P_at_2=F(1, 2), R_at_2=F(1, 3))
    assert f"{found['AP']:.3f}".lstrip("0") in HAND and f"{found['NDCG@2']:.3f}".lstrip("0") in HAND
    levels = [found[f"P@r{level / 10:.1f}"] for level in range(11)]
    assert levels == [1.0] * 4 + [0.75] * 7
    for normaliser, expected in (("retrieved", F(1)), ("min", F(1, 2)), ("all", F(1, 3)), ("mith", F(5, 6))):
        value = average_precision(FALLING, GAINS > 0, cutoff=2, normaliser=normaliser)  # type: ignore[arg-type]
        assert float(value[0]) == pytest.approx(float(expected))


def test_shortlist_of_labels() -> None:
    angles = torch.tensor([[3.0], [1.0], [2.0], [4.0], [5.0]]) / 10
    gallery = Embeddings(
        torch.cat([angles.cos(), angles.sin()], dim=1), FALLING.view(5, 1, 1), torch.ones(5, 1, dtype=torch.bool)
    )
    labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert (labels[:1] @ labels.T).tolist() == GAINS.tolist()

    def look_up(query: Embeddings, found: Embeddings) -> Tensor:
        assert found.tokens is not None
        return found.tokens[:, 0].T

    query = Embeddings(torch.tensor([[1.0, 0.0]]))
    short, exact = (
        float(
            label_queries(query, gallery, labels[:1], labels, (2,), "all", look_up, "pessimistic", str, None, size)[
                "AP"
            ]
        )
        for size in (2, None)
    )
    exactly({"short": short, "lost": exact - short}, short=F(23, 36), lost=F(1, 6))
    assert f"= {short:.3f}".replace("0.", ".") in HAND and f"{exact - short:.3f}"[1:] in HAND


def test_unseen_items() -> None:
    """Row 0 is the query; the gallery's text j scores 1 - j / 10 with it, in both directions."""
    labels = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.uint8)
    features = np.arange(6, dtype=np.float32)[:, None]
    here = dataclasses.replace(
        feature_corpus(features, features, np.arange(6), labels, queries=1), train=np.array([1, 2])
    )
    items = Embeddings(torch.from_numpy(features))
    found = LabelProtocol().evaluate(
        here, "test", items, items, lambda images, texts: 1 - (images.pooled + texts.pooled.T) / 10
    )
    exactly(found.metrics, i2t__mAP=F(29, 36), t2i__mAP=F(29, 36), unseen__i2t__mAP=1)


def test_binary_codes() -> None:
    query, *gallery = (
        [2 * int(bit) - 1 for bit in code] for code in re.findall(r"\b[01]{4}\b", HAND[HAND.index("### Binary") :])
    )
    relevant = np.array([[1], [0], [1], [1]])
    found = hamming_retrieval(np.array([query], float), np.array(gallery, float), np.array([[1]]), relevant)
    exactly(found, mAP=F(29, 36), optimistic__mAP=F(11, 12), P_at_h2=F(2, 3), R_at_h2=F(2, 3), P_at_h0=0)
