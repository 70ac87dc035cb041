"""SEDRA's score against loops written from the equations, its switches, and its numerical care."""

import math
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from toy import toy_encoders
from toy_tokens import real, toy_items

from itmbench.encoders import Embeddings
from itmbench.methods.sedra.fusion import RelationFusion
from itmbench.methods.sedra.inter import InterModalRelations
from itmbench.methods.sedra.module import SEDRA, Tokens


def method(**switches: Any) -> SEDRA:
    """A small SEDRA whose learned parts are not at their starting values."""
    L.seed_everything(3, verbose=False)
    arguments: dict[str, Any] = {"dim": 16, "intra_k": 3, "inter_m": 2} | toy_encoders() | switches
    model = SEDRA(**arguments).eval()
    with torch.no_grad():
        for fusion in (model.word_fusion, model.region_fusion):
            for weight in fusion.parameters():
                weight.add_(torch.randn_like(weight))
        model.evidence.fill_(-0.4)
        model.balance.fill_(0.3)
        model.inter.threshold.fill_(0.1)
    return model


IMAGES, TEXTS = toy_items([5, 5, 4], seed=1), toy_items([6, 1, 3, 6], seed=2)


# --- the slow loop ------------------------------------------------------------------------------------------------


def slow_score(model: SEDRA, images: Embeddings, texts: Embeddings) -> Tensor:
    """Every pair alone, every context formed, from the equations."""
    scores = torch.zeros(len(images), len(texts))
    for i in range(len(images)):
        for j in range(len(texts)):
            regions, words = real(images, i), real(texts, j)
            overall = float(images.pooled[i] @ texts.pooled[j])
            weights, evidence = slow_relations(model.inter, words, regions)
            local = (
                slow_direction(model.word_fusion, own=regions, foreign=words, weights=weights)
                + slow_direction(model.region_fusion, own=words, foreign=regions, weights=weights.T)
            ) / 2 + math.exp(float(model.evidence)) * evidence
            beta = 1 / (1 + math.exp(-float(model.balance)))
            scores[i, j] = {"global": overall, "local": local, "both": beta * overall + (1 - beta) * local}[
                model.alignment
            ]
    return scores


def slow_relations(inter: InterModalRelations, words: Tensor, regions: Tensor) -> tuple[Tensor, float]:
    """Weights `[words, regions]` and the mean evidence of the words."""
    tau, sharpness = float(inter.threshold), float(inter.log_sharpness.exp())
    weights, evidence = torch.ones(len(words), len(regions)), 0.0
    for j, word in enumerate(words):
        cosines = [float(word @ region) for region in regions]
        kept = sorted(cosines, reverse=True)[: inter.m]
        for i, c in enumerate(cosines):
            if inter.mode == "full":
                weights[j, i] = math.exp(sharpness * (c - 1))
            elif inter.mode != "off":
                weights[j, i] = math.exp(sharpness * (c - tau)) - 1 if c > tau and c in kept else 0.0
        if inter.mode == "topk+neg":
            evidence += min(0.0, max(cosines) - tau) / len(words)
    return weights, evidence


def slow_direction(fusion: RelationFusion, own: Tensor, foreign: Tensor, weights: Tensor) -> float:
    vectors = []
    for token, of_token in zip(foreign, weights, strict=True):
        total = float(of_token.sum())
        context = of_token @ own / total if total else torch.zeros_like(token)
        vectors.append(slow_similarity(fusion, token, context))
    gates = [1 / (1 + math.exp(-float(fusion.filter(vector)))) for vector in vectors]
    return sum(g * float(fusion.read(v)) for g, v in zip(gates, vectors, strict=True)) / sum(gates)


def slow_similarity(fusion: RelationFusion, token: Tensor, context: Tensor) -> Tensor:
    size = float(context.norm())
    cosine = float(token @ context) / size if size else 0.0
    if fusion.mode == "concat":
        return torch.tensor([cosine, size])
    fused = token + context
    if fusion.mode == "gate":
        a, b, c = (float(value) for value in fusion.gate)
        z = 1 / (1 + math.exp(-(a * cosine + b * size + c)))
        fused = z * token + (1 - z) * context
    return torch.tensor([float(fused @ context / (fused.norm() * size)) if size else 0.0, cosine, size])


SWITCHES: list[dict[str, Any]] = [
    *(
        {"inter": inter, "fusion": fusion}
        for inter in ("off", "full", "topk", "topk+neg")
        for fusion in ("gate", "sum")
    ),
    *({"fusion": "concat"}, {"inter_m": 1}, {"alignment": "global"}, {"alignment": "local"}),
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_score_is_that_of_the_slow_loop(switches: dict[str, Any]) -> None:
    model = method(**switches)
    with torch.no_grad():
        torch.testing.assert_close(model.score(IMAGES, TEXTS), slow_score(model, IMAGES, TEXTS), rtol=0, atol=1e-5)


# --- numerical care -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "switches",
    [
        *({"inter": "off"}, {"inter": "full"}, {"inter": "topk"}, {"inter_m": 1}),
        *({"fusion": "sum"}, {"fusion": "concat"}, {"alignment": "global"}, {"alignment": "local"}),
    ],
    ids=str,
)
def test_every_switch_of_a_pair_changes_its_score(switches: dict[str, Any]) -> None:
    with torch.no_grad():
        assert not torch.allclose(method(**switches).score(IMAGES, TEXTS), method().score(IMAGES, TEXTS), atol=1e-3)


@pytest.mark.parametrize(
    "switches", [{"intra": "off"}, {"intra": "full"}, {"intra": "static"}, {"intra_k": 1}], ids=str
)
def test_every_switch_of_an_item_changes_its_tokens(switches: dict[str, Any]) -> None:
    items = toy_items([5, 5, 4], dim=32)
    with torch.no_grad():
        one, other = (method(**options).embed(items, "image") for options in ({}, switches))
    assert one.tokens is not None and other.tokens is not None
    assert not torch.allclose(one.tokens, other.tokens, atol=1e-3)


@pytest.mark.parametrize("inter", ["off", "full", "topk", "topk+neg"])
@pytest.mark.parametrize("fusion", ["gate", "sum", "concat"])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1.5])
def test_extreme_inputs_have_finite_scores_and_gradients(inter: Any, fusion: Any, threshold: float) -> None:
    """A padded text, a single region, equal and opposite tokens, nothing above the threshold."""
    model = method(inter=inter, fusion=fusion).train()
    images, texts = toy_items([1, 5, 5], seed=4), toy_items([0, 1, 5, 5], seed=5)
    assert images.tokens is not None and texts.tokens is not None
    with torch.no_grad():
        model.inter.threshold.fill_(threshold)
        model.inter.log_sharpness.fill_(20.0)
        texts.tokens[1, 0] = images.tokens[0, 0]
        texts.tokens[2] = -images.tokens[1]
        images.tokens[2] = images.tokens[2, :1]
    leaves = [images.tokens.requires_grad_(), texts.tokens.requires_grad_()]
    scores = model.score(images, texts)
    scores.square().sum().backward()
    assert scores.isfinite().all()
    for leaf in [*leaves, *(weight for weight in model.parameters() if weight.grad is not None)]:
        assert leaf.grad is not None and leaf.grad.isfinite().all()


def test_tokens_in_half_precision_are_close() -> None:
    """As they wait on a GPU."""
    model = method()
    halves = [
        Embeddings(items.pooled, items.tokens.half(), items.mask)
        for items in (IMAGES, TEXTS)
        if items.tokens is not None
    ]
    with torch.no_grad():
        torch.testing.assert_close(model.score(*halves), model.score(IMAGES, TEXTS), rtol=0, atol=5e-3)


def test_blocks_bound_what_training_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks keep their inputs only; one block keeps some 40 bytes a relation."""
    images, texts = toy_items([24] * 16), toy_items([12] * 16)
    for items in (images, texts):
        assert items.tokens is not None
        items.tokens.requires_grad_()
    kept = []
    for limit in (1 << 26, 16 * 24 * 12):
        monkeypatch.setattr("itmbench.methods.token_matcher._TRAINED", limit)
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            method().train().score(images, texts)
        kept.append(sum(sizes.values()) / (16 * 24 * 16 * 12))
    assert 20 < kept[0] < 60
    assert kept[1] < 5


# --- as a whole -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intra", ["topk", "full", "static", "off"])
def test_encodes_items_alone_empty_and_padded(intra: Any) -> None:
    """The same embedding in any batch; an item without a real token has finite gradients."""
    torch.manual_seed(0)
    layer = Tokens(12, 16, intra, 3).eval()
    inputs = toy_items([5, 0, 1, 3], dim=12)
    assert inputs.tokens is not None and inputs.mask is not None
    inputs.tokens.requires_grad_()
    pooled, tokens = layer(inputs)
    alone, its_tokens = layer(Embeddings(inputs.pooled[3:], inputs.tokens[3:, :3], inputs.mask[3:, :3]))
    torch.testing.assert_close(alone, pooled[3:])
    torch.testing.assert_close(its_tokens, tokens[3:, :3])
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(4))
    (pooled.square() * 0.3 + pooled).sum().backward()
    assert inputs.tokens.grad is not None and inputs.tokens.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in layer.parameters() if weight.grad is not None)
