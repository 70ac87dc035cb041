"""Each check of the leak audit on hand-made embeddings, scores and states."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from evaluation.feature_corpus import evaluated, feature_corpus
from torch import Tensor, nn

from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.canaries import Limit
from itmbench.evaluation.leaks import (
    alone,
    as_reported,
    at_chance,
    digests,
    frozen,
    pairs,
    same_fit,
    same_ranks,
    same_scores,
    ties_lose,
    without_rounding,
)
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol

VECTORS = torch.arange(1.0, 15.0).view(7, 2)
WORDS = torch.tensor([1, 3, 2, 0, 3, 1, 2])


class Encoding:
    """Items with tokens, padded to the longest of their batch, and a way to go wrong."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong

    def __call__(self, which: Sequence[int]) -> Embeddings:
        rows = torch.tensor(which)
        pooled, words = VECTORS[rows].clone(), WORDS[rows]
        width = int(words.max()) + (self.wrong == "padding")
        mask = torch.arange(width) < words[:, None]
        tokens = pooled[:, None] * torch.arange(1.0, width + 1)[:, None] + ~mask[..., None] * torch.rand(1)
        if self.wrong == "sum":
            pooled += 0.01 * pooled.sum(0)
        elif self.wrong == "first":
            pooled[0] *= 1.01
        elif self.wrong == "odd sizes" and len(which) == 3:
            pooled *= 1.01
        elif self.wrong == "neighbour" and len(which) > 1:
            tokens[1] += 0.01 * tokens[0, :1]
        elif self.wrong == "length":
            tokens[words == 0] = 0.0
            mask[words == 0, :1] = width > 2
        elif self.wrong == "nan" and len(which) == 1 and which[0] == 3:
            pooled += torch.nan
        elif self.wrong == "rounding":
            pooled *= 1 + 1e-6 * len(which)
        return Embeddings(pooled, tokens, mask)


@pytest.mark.parametrize("wrong", ["", "padding", "rounding"])
def test_padding_and_rounding_are_no_leak(wrong: str) -> None:
    finding = alone({"image": Encoding(), "text": Encoding(wrong)}, {"image": 7, "text": 7})
    assert finding.passed and finding.found == 0 and "(either modality)" in finding.what


@pytest.mark.parametrize("wrong", ["sum", "first", "odd sizes", "neighbour", "length", "nan"])
def test_an_embedding_that_depends_on_its_batch_is_found(wrong: str) -> None:
    finding = alone({"image": Encoding(), "text": Encoding(wrong)}, {"image": 7, "text": 7})
    assert not finding.passed and "(text)" in finding.what
    if wrong in ("sum", "first", "nan"):
        assert finding.found == {"sum": 7, "first": 6, "nan": 1}[wrong] / 7
    finding = alone({"image": Encoding(wrong), "text": Encoding()}, {"image": 7, "text": 7})
    assert not finding.passed and "(image)" in finding.what


def cosine(images: Embeddings, texts: Embeddings) -> Tensor:
    return torch.nn.functional.normalize(images.pooled) @ torch.nn.functional.normalize(texts.pooled).T


def test_a_score_that_depends_on_its_tile_is_found() -> None:
    images, texts = (Embeddings(torch.randn(7, 4, generator=torch.Generator().manual_seed(n))) for n in (0, 1))
    assert pairs(cosine, images, texts).passed
    for leak in (
        lambda i, t: cosine(i, t) - 0.01 * cosine(i, t).amax(0),
        lambda i, t: cosine(i, t) - 0.01 * cosine(i, t).amax(1, keepdim=True),
        lambda i, t: cosine(i, t) + 0.01 * torch.arange(len(t)),
        lambda i, t: cosine(i, t) + 0.01 * torch.arange(len(i))[:, None],
        lambda i, t: cosine(i, t) + (torch.nan if len(t) == 1 else 0),
    ):
        assert not pairs(leak, images, texts).passed


def test_the_metric_nearest_to_its_bound_is_told() -> None:
    limits = [Limit("a", 0.5, 0.1, 0.6), Limit("b", 0.95, 0.9, 1.0), Limit("c", 1.0, 1.0, 1.0)]
    finding = at_chance(limits)
    assert finding.passed and (finding.found, finding.bound) == (0.5, 0.6) and finding.what.startswith("a ")
    finding = at_chance([*limits, Limit("d", 0.3, 0.1, 0.2)])
    assert not finding.passed and finding.what.startswith("d ")


@pytest.mark.parametrize("protocol", [CaptionProtocol(), LabelProtocol()])
def test_only_what_ties_give_is_right_for_identical_contents(protocol: CaptionProtocol | LabelProtocol) -> None:
    labels = np.eye(2, dtype=np.uint8)[[0, 1, 0, 1, 0, 0]]
    images, texts = np.ones((6, 3), np.float32), np.ones((12, 3), np.float32)
    owner = np.repeat(np.arange(6), 2)
    assert ties_lose(evaluated(same := feature_corpus(images, texts, owner, labels), protocol), same, protocol).passed
    texts[4, 0] += 2e-6
    rounded = feature_corpus(images, texts, owner, labels)
    # To the ranking, rounding is no tie; the check looks past it.
    assert not ties_lose(evaluated(rounded, protocol), rounded, protocol).passed
    assert ties_lose(evaluated(rounded, without_rounding(protocol)), rounded, protocol).passed
    texts[4, 0] += 2e-4
    other = feature_corpus(images, texts, owner, labels)
    finding = ties_lose(evaluated(other, without_rounding(protocol)), other, protocol)
    assert not finding.passed and finding.found != finding.bound


def test_without_rounding_keeps_the_options_of_a_protocol() -> None:
    assert without_rounding(CaptionProtocol(ks=(2,))).as_dict() == CaptionProtocol(ks=(2,)).as_dict()
    asked = LabelProtocol(cutoffs=(3,), normaliser="min", ties="optimistic")
    assert without_rounding(asked).as_dict() == asked.as_dict()


class Stateful(nn.Module):
    """A weight, a buffer of a checkpoint, one that is in none, and an extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0, dtype=torch.bfloat16))
        self.kept: Tensor
        self.passing: Tensor
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("passing", torch.zeros(2), persistent=False)
        self.extra = {"words": 3}

    def get_extra_state(self) -> dict[str, int]:
        return self.extra


def test_every_kind_of_state_that_changes_is_found() -> None:
    module = Stateful()
    before = digests(module)
    assert set(before) == {"weight", "kept", "passing", "_extra_state"}
    assert frozen(before, digests(Stateful())).passed
    with torch.no_grad():
        for change in (
            lambda: module.weight.add_(0.01),
            lambda: module.kept.mul_(2),
            lambda: module.passing.sub_(1),
            lambda: module.extra.update(words=4),
            lambda: module.register_buffer("new", torch.zeros(1)),
        ):
            change()
            finding = frozen(before, digests(module))
            assert finding.found == 1 and not finding.passed
            before = digests(module)


def test_another_answer_to_the_same_question_is_found() -> None:
    images = np.eye(4, dtype=np.float32)
    first, second = (
        evaluated(feature_corpus(images, each, range(4)), CaptionProtocol()) for each in (images, images[::-1])
    )
    assert frozen({}, {}, [first, first]).passed
    assert not frozen({}, {}, [first, second]).passed


def test_the_share_of_scores_that_differ_is_told() -> None:
    scores = torch.linspace(-1, 1, 20).view(4, 5)
    assert same_scores("subset", scores, scores + 5e-5, torch.float32, "here").passed
    other = scores.clone()
    other[1, 2] += 4e-4
    finding = same_scores("subset", scores, other, torch.float32, "here")
    assert not finding.passed and finding.found == pytest.approx(0.05) and finding.what.endswith("at most by 0.0002")
    for dtype, rounding in ((torch.float16, 2**-8), (torch.bfloat16, 2**-5)):
        assert same_scores("subset", scores, scores + rounding, dtype, "here").passed
        assert not same_scores("subset", scores, scores + 4 * rounding, dtype, "here").passed
    other[0, 0] = torch.nan
    assert same_scores("subset", scores, other, torch.float32, "here").found == pytest.approx(0.1)
    assert same_scores("subset", scores, None, torch.float32, "here").found == 1
    assert same_scores("subset", None, scores, torch.float32, "here").found == 1


def test_the_share_of_queries_with_another_order_is_told() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.8, 0.24], [0.1, 0.4, 0.7]])
    assert same_ranks(scores, 3 * scores - 1, torch.float32).found == 0  # a monotone change is none
    other = scores.clone()
    other[0, 2] = 0.6  # turns the order of row 0 and, against 0.7 below, leaves that of column 2
    assert same_ranks(scores, other, torch.float32).found == pytest.approx(1 / 3)  # row 0, and 0.24 in column 2
    assert same_ranks(scores, torch.zeros(3, 3), torch.float32).found == 1  # ties are another order
    close = scores.clone()
    close[1, 0], close[1, 2] = 0.24, 0.2
    assert same_ranks(scores, close, torch.float32).found > 0
    assert same_ranks(scores, close, torch.bfloat16).found == 0  # rounding may have turned 0.04
    assert same_ranks(None, scores, torch.float32).found == same_ranks(scores, None, torch.float32).found == 1


def test_what_is_reported_and_what_training_leaves_must_be_equal() -> None:
    assert as_reported([]).passed
    finding = as_reported(["rSum", "rank"])
    assert not finding.passed and finding.found == 2 and "(rSum)" in finding.what
    assert same_fit({"a": "1"}, {"a": "1"}).passed
    finding = same_fit({"a": "1", "b": "2"}, {"a": "1", "c": "2"})
    assert not finding.passed and finding.found == 2
