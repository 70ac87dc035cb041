"""SCAN against loops written from the paper's equations, which form every context."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from toy import toy_encoders
from toy_tokens import real, toy_items

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.explained import ExplainsPairs
from itmbench.methods.scan import SCAN

IMAGES, TEXTS = toy_items([5, 1, 4, 5], seed=1), toy_items([6, 1, 3, 6, 2], seed=2)
DIRECTIONS, AGGREGATIONS = ("t2i", "i2t", "both"), ("mean", "lse")


def method(**options: Any) -> SCAN:
    return SCAN(dim=16, **toy_encoders(), **options).eval()  # type: ignore[arg-type]


def slow_score(images: Embeddings, texts: Embeddings, direction: str, aggregation: str, lambda_2: float = 6) -> Tensor:
    """Every pair alone, every context formed, with the lambda_1 of the authors."""
    if direction == "both":
        one, other = (slow_score(images, texts, each, aggregation, lambda_2) for each in ("t2i", "i2t"))
        return one + other
    rows = []
    for i in range(len(images)):
        for j in range(len(texts)):
            regions, words = real(images, i), real(texts, j)
            if direction == "t2i":
                relevances = slow_relevances(attending=words, attended=regions, lambda_1=9)
            else:
                relevances = slow_relevances(attending=regions, attended=words, lambda_1=4)
            if aggregation == "mean":
                rows.append(torch.stack(relevances).mean())
            else:
                rows.append(torch.log(sum((lambda_2 * r).exp() for r in relevances)) / lambda_2)  # type: ignore[arg-type]
    return torch.stack(rows).view(len(images), len(texts))


def slow_relevances(attending: Tensor, attended: Tensor, lambda_1: float) -> list[Tensor]:
    clipped = [[(r if r > 0 else 0.1 * r) for r in (a @ v for a in attending)] for v in attended]
    unit = [[c / torch.stack(row).norm() for c in row] for row in clipped]
    relevances = []
    for place, token in enumerate(attending):
        weights = torch.stack([lambda_1 * row[place] for row in unit]).softmax(0)
        context = sum((w * v for w, v in zip(weights, attended, strict=True)), torch.zeros_like(token))
        relevances.append(token @ context / (token.norm() * context.norm()))
    return relevances


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_score_and_gradient_are_those_of_the_slow_loop(direction: Any, aggregation: Any) -> None:
    model = method(direction=direction, aggregation=aggregation)
    expected = slow_score(IMAGES, TEXTS, direction, aggregation)
    with torch.no_grad():
        torch.testing.assert_close(model.score(IMAGES, TEXTS), expected, rtol=0, atol=1e-5)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    found, wanted = (
        gradients(score, weight)
        for score in (model.score, lambda images, texts: slow_score(images, texts, direction, aggregation))
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def gradients(score: Any, weight: Tensor) -> list[Tensor]:
    """Of a weighted sum of scores with respect to the directions of all tokens."""
    free = [items.tokens.clone().requires_grad_() for items in (IMAGES, TEXTS) if items.tokens is not None]
    images, texts = (
        Embeddings(items.pooled, normalize(tokens, dim=-1), items.mask)
        for items, tokens in zip((IMAGES, TEXTS), free, strict=True)
    )
    return list(torch.autograd.grad((score(images, texts) * weight).sum(), free))


def test_lambdas_are_those_of_the_paper_unless_given() -> None:
    with torch.no_grad():
        for direction, paper in (("t2i", 9.0), ("i2t", 4.0)):
            score = method(direction=direction).score(IMAGES, TEXTS)
            torch.testing.assert_close(score, method(direction=direction, sharpness=paper).score(IMAGES, TEXTS))
            assert (score - method(direction=direction, sharpness=2.0).score(IMAGES, TEXTS)).abs().max() > 0.01
        other = method(aggregation="lse", lse_sharpness=20.0).score(IMAGES, TEXTS)
        torch.testing.assert_close(other, slow_score(IMAGES, TEXTS, "t2i", "lse", lambda_2=20), rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_tokens_that_cancel_each_other_score_nothing_and_keep_gradients_small(direction: Any) -> None:
    """Their mean is 0, and a cosine with it would be rounding noise, steep in every direction."""
    first, second = torch.eye(16)[:2]
    opposite = torch.stack([first, -first]).unsqueeze(0).requires_grad_()
    other = second.view(1, 1, 16).clone().requires_grad_()
    own = Embeddings(first.unsqueeze(0), opposite, torch.ones(1, 2, dtype=torch.bool))
    foreign = Embeddings(second.unsqueeze(0), other, torch.ones(1, 1, dtype=torch.bool))
    score = method(direction=direction).score(*((own, foreign) if direction == "t2i" else (foreign, own)))
    for gradient in torch.autograd.grad(score.sum(), (opposite, other)):
        assert float(gradient.abs().max()) < 1e4
    assert float(score.detach().abs()) < 1e-6


@pytest.mark.parametrize("direction", ["t2i", "both"])
def test_what_words_attend_to_adds_up_to_the_score(direction: str) -> None:
    model = method(direction=direction)
    assert isinstance(model, ExplainsPairs)
    for i, j in ((0, 0), (2, 2), (1, 3)):  # some padded
        at = slice(i, i + 1), slice(j, j + 1)
        found = model.attended(IMAGES[at[0]], TEXTS[at[1]])
        score = slow_score(IMAGES[at[0]], TEXTS[at[1]], direction, "mean")
        assert sum(found.paths.values()) == pytest.approx(float(score), abs=1e-5)
        assert [*found.paths][-1] == "words"
        assert found.paths["words"] == pytest.approx(float(found.shares @ found.found), abs=1e-6)
        regions, words = real(IMAGES, i), real(TEXTS, j)
        assert found.regions.shape == (len(words), len(regions))
        torch.testing.assert_close(found.regions.sum(1), torch.ones(len(words)))
        contexts = normalize(found.regions @ regions, dim=1)  # what a word attends to is as relevant as it is found
        torch.testing.assert_close((normalize(words, dim=1) * contexts).sum(1), found.found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"direction": "i2t"}, {"aggregation": "lse"}])
def test_a_score_that_is_no_mean_over_words_has_nothing_to_show(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not a mean over words that attend to regions"):
        method(**options).attended(IMAGES[:1], TEXTS[:1])
