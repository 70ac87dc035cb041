"""SGRAF against loops written from the paper's equations, one pair and one node at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from toy import toy_encoders
from toy_tokens import real, toy_items

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods import token_matcher
from itmbench.methods.explained import ExplainsPairs
from itmbench.methods.losses import InfoNCE
from itmbench.methods.sgraf import SGRAF, GlobalAttention

IMAGES, TEXTS = toy_items([5, 1, 4], seed=1), toy_items([6, 1, 3, 6, 0], seed=2)


def method(**options: Any) -> SGRAF:
    """A small SGRAF whose biases are not at their starting values."""
    torch.manual_seed(3)
    model = SGRAF(**{"dim": 16, "similarity_dim": 8} | toy_encoders() | options).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) / 3)
    return model


def slow_score(model: SGRAF, images: Embeddings, texts: Embeddings) -> Tensor:
    scores = torch.zeros(len(images), len(texts))
    for i in range(len(images)):
        for j in range(len(texts)):
            regions, words = real(images, i), real(texts, j)
            nodes = [unit(model.compare_wholes((images.pooled[i] - texts.pooled[j]) ** 2))]
            for place, word in enumerate(words):
                context = unit(slow_context(words, regions, place))
                nodes.append(unit(model.compare_words((word - context) ** 2)))
            head: Any = model.head
            vector = slow_reasoning(head, nodes) if hasattr(head, "steps") else slow_filtration(head, nodes)
            scores[i, j] = model.read(vector).sigmoid()
    return scores


def test_infonce_scores_by_the_logit_and_ranks_alike() -> None:
    triplet, contrast = method(), method(loss=InfoNCE())
    with torch.no_grad():
        torch.testing.assert_close(contrast.score(IMAGES, TEXTS).sigmoid(), triplet.score(IMAGES, TEXTS))


def slow_context(words: Tensor, regions: Tensor, place: int) -> Tensor:
    """SCAN's attention, by functions other than the method's."""
    relations = torch.nn.functional.leaky_relu(regions @ words.T, 0.1)
    weights = (9 * normalize(relations, dim=1)).softmax(0)[:, place]
    return weights @ regions


def slow_filtration(head: Any, nodes: list[Tensor]) -> Tensor:
    gates = [head.gate(node).sigmoid() for node in nodes]
    return unit(torch.stack([gate * node for gate, node in zip(gates, nodes, strict=True)]).sum(0) / sum(gates))


def slow_reasoning(head: Any, nodes: list[Tensor]) -> Tensor:
    for step in head.steps:
        moved = []
        for node in nodes:
            strength = torch.stack([step.query(node) @ step.key(other) for other in nodes])
            edges = strength.exp() / strength.exp().sum()
            mixed = torch.stack([edge * other for edge, other in zip(edges, nodes, strict=True)]).sum(0)
            moved.append(torch.relu(step.out(mixed)))
        nodes = moved
    return nodes[0]


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


@pytest.mark.parametrize("options", [{"module": "saf"}, {"module": "sgr"}, {"module": "sgr", "steps": 1}])
def test_score_is_that_of_the_slow_loop(options: dict[str, Any]) -> None:
    model = method(**options)
    with torch.no_grad():
        torch.testing.assert_close(model.score(IMAGES, TEXTS), slow_score(model, IMAGES, TEXTS), rtol=0, atol=1e-5)


def test_the_whole_of_an_item_is_that_of_a_slow_loop() -> None:
    torch.manual_seed(0)
    attention, items = GlobalAttention(16), toy_items([4, 1, 0], seed=5)
    assert items.tokens is not None and items.mask is not None
    with torch.no_grad():
        whole = attention(items.tokens * items.mask.unsqueeze(2), items.mask)
        for row in (0, 1):
            tokens = real(items, row)
            guide = attention.mean_branch(tokens.mean(0))
            logits = torch.stack([attention.read(attention.token_branch(token) * guide)[0] for token in tokens])
            torch.testing.assert_close(whole[row], unit(logits.softmax(0) @ tokens), rtol=0, atol=1e-6)
        assert not whole[2].any()


def test_larger_similarity_vectors_are_held_in_smaller_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(token_matcher._EVALUATED, "cpu", 800)
    largest = []
    for size in (8, 64):
        model = method(similarity_dim=size)
        blocks: list[int] = []
        score_block = model.score_block

        def watch(*items: Any, score: Any = score_block, seen: list[int] = blocks) -> Tensor:
            seen.append(len(items[0]) * len(items[1]))
            return score(*items)

        monkeypatch.setattr(model, "score_block", watch)
        with torch.no_grad():
            torch.testing.assert_close(model.score(IMAGES, TEXTS), slow_score(model, IMAGES, TEXTS), rtol=0, atol=1e-5)
        assert model.read.in_features == size
        largest.append(max(blocks))
    assert largest[0] > largest[1]


def test_no_step_of_reasoning_is_refused() -> None:
    with pytest.raises(InputError, match="give at least 1"):
        method(module="sgr", steps=0)


def test_the_parts_of_an_explanation_sum_to_the_readout_and_attention_is_that_of_each_word() -> None:
    model = method(loss=InfoNCE())
    assert isinstance(model, ExplainsPairs)
    with torch.no_grad():
        for i in range(len(IMAGES)):
            for j in range(4):  # the last text has no words
                parts = model.attended(IMAGES[i : i + 1], TEXTS[j : j + 1])
                assert sum(parts.paths.values()) == pytest.approx(
                    float(model.score(IMAGES[i : i + 1], TEXTS[j : j + 1])), abs=1e-5
                )
                assert parts.paths["words"] == pytest.approx(parts.scale * float((parts.shares * parts.found).sum()))
                assert float(parts.shares.sum()) == pytest.approx(1) and len(parts.shares) == len(real(TEXTS, j))
                for place, attention in enumerate(parts.regions):
                    context = slow_context(real(TEXTS, j), real(IMAGES, i), place)
                    torch.testing.assert_close(attention @ real(IMAGES, i), context)


def test_reasoning_leaves_no_share_to_a_word() -> None:
    with pytest.raises(InputError, match="module sgr"):
        method(module="sgr").attended(IMAGES[:1], TEXTS[:1])
