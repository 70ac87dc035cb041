"""HREM: its layer, graph and pooling against slow loops; no edge to a partner; no graph at test."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor
from torch.nn.functional import normalize
from toy import ToyData, toy_encoders, trainer

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods import hrem as graph
from itmbench.methods.hrem import (
    HREM,
    RelationLayer,
    RelationPooling,
    divergence,
    mean_of_largest,
    relation_graph,
    token_relevance,
)
from itmbench.methods.losses import TripletLoss

PAIRS = torch.tensor([0, 1, 2, 2, 4, 5])
"""Images of a batch; the third and fourth pair are two texts of one image."""
POSITIVES = PAIRS[:, None] == PAIRS[None, :]


def matcher(**options: Any) -> HREM:
    torch.manual_seed(0)
    return HREM(**({"dim": 32, "heads": 2, "lr": 3e-3} | toy_encoders() | options))


def items(count: int = 6, tokens: int = 5, dim: int = 8) -> Embeddings:
    """Random items of 1 to N real tokens."""
    mask = torch.arange(tokens)[None] < torch.randint(1, tokens + 1, (count, 1))
    return Embeddings(normalize(torch.randn(count, dim), dim=-1), torch.randn(count, tokens, dim), mask)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_layer_is_attention_with_edge_weights_added_to_its_logits() -> None:
    layer = RelationLayer(8, 2, dropout=0.5).eval()
    nodes, edges = torch.randn(1, 4, 8), torch.randn(1, 4, 4)
    edges[0, 0, 2] = edges[0, 3, 1] = -torch.inf
    made = layer(nodes, edges)[0]
    query, key, value = layer.query_key_value(nodes[0]).chunk(3, dim=1)
    for row in range(4):
        seen = []
        for head in (slice(0, 4), slice(4, 8)):
            weights = [
                math.exp((query[row, head] @ key[other, head]).item() / 2 + edges[0, row, other].item())
                for other in range(4)
            ]
            seen.append(sum(w / sum(weights) * value[other, head] for other, w in enumerate(weights)))
        attended = layer.attention_norm(nodes[0, row] + layer.out(torch.cat(seen)))
        expected = layer.feed_forward_norm(attended + layer.feed_forward(attended))
        torch.testing.assert_close(made[row], expected, atol=1e-5, rtol=1e-4)


def slow_relevance(image: Embeddings, text: Embeddings, i: int, j: int) -> tuple[float, float]:
    """Image i in text j and text j in image i, token by token."""
    assert image.tokens is not None and image.mask is not None and text.tokens is not None and text.mask is not None
    regions = [token for token, real in zip(image.tokens[i], image.mask[i], strict=True) if real]
    words = [token for token, real in zip(text.tokens[j], text.mask[j], strict=True) if real]
    cosines = np.array([[float(torch.cosine_similarity(r, w, dim=0)) for w in words] for r in regions])
    return cosines.max(1).mean(), cosines.max(0).mean()


def test_graph_connects_the_nearest_of_each_modality_and_no_partner() -> None:
    image, text = items(), items(tokens=7)
    edges = relation_graph(image, text, POSITIVES, connections=0.4)
    expected = np.full((12, 12), -np.inf)
    for a in range(12):
        for first in (0, 6):  # images, then texts
            weights = {}
            for b in range(first, first + 6):
                if PAIRS[a % 6] == PAIRS[b % 6]:
                    continue
                if (a < 6) == (b < 6):
                    table = image.pooled if a < 6 else text.pooled
                    weights[b] = math.exp(-float((table[a % 6] - table[b % 6]).norm()))
                else:
                    weights[b] = slow_relevance(image, text, min(a, b), max(a, b) - 6)[0 if a < 6 else 1]
            for b in sorted(weights, key=lambda other: -weights[other])[:2]:  # 0.4 of 6
                expected[a, b] = weights[b]
        expected[a, a] = 1.0
    np.testing.assert_allclose(edges.numpy(), expected, atol=1e-5)


def test_token_relevance_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    image, text = items(), items(count=4, tokens=7)
    whole = token_relevance(image, text)
    assert (whole[0].shape, whole[1].shape) == ((6, 4), (4, 6))
    monkeypatch.setattr(graph, "_MAX_COSINES", 2 * 5 * 4 * 7)
    for part, expected in zip(token_relevance(image, text), whole, strict=True):
        torch.testing.assert_close(part, expected)


def test_in_training_nothing_flows_from_what_belongs_together() -> None:
    """The gradient of an instance in the graph with respect to its partners is 0; to others it is not."""
    image, text = items(), items()
    layer = RelationLayer(8, 2, dropout=0.0)
    edges = relation_graph(image, text, POSITIVES, connections=1.0).unsqueeze(0)
    nodes = torch.cat([image.pooled, text.pooled])

    def related(nodes: Tensor) -> Tensor:
        return layer(nodes.unsqueeze(0), edges)[0]

    flow = torch.autograd.functional.jacobian(related, nodes).abs().amax(dim=(1, 3))
    partners = POSITIVES.repeat(2, 2) & ~torch.eye(12, dtype=torch.bool)
    assert (flow[partners] == 0).all() and partners.sum() == 20
    assert (flow[~partners] > 0).all()


def test_a_batch_of_partners_alone_gives_no_edge_and_no_nan() -> None:
    image, text = items(), items()
    edges = relation_graph(image, text, torch.ones_like(POSITIVES), connections=0.5)
    assert torch.equal(edges.isfinite(), torch.eye(12, dtype=torch.bool))
    assert RelationLayer(8, 2, 0.0)(torch.cat([image.pooled, text.pooled])[None], edges[None]).isfinite().all()


def test_pooling_is_the_two_largest_values_and_the_mean_of_relations() -> None:
    pooling = RelationPooling(6, 8, heads=2, dropout=0.5, residual=0.8).eval()
    states = items(tokens=5, dim=6)
    assert states.tokens is not None and states.mask is not None
    tokens, pooled = pooling(states.tokens, states.mask)
    for row, mask in enumerate(states.mask):
        real = pooling.project(states.tokens[row][mask])
        torch.testing.assert_close(tokens[row][mask], real)
        largest = torch.stack([value.sort(descending=True).values[:2].mean() for value in real.T])
        related = pooling.relations(real[None], torch.zeros(1, len(real), len(real)))[0].mean(0)
        mixed = 0.8 * largest + 0.2 * related
        torch.testing.assert_close(pooled[row], mixed / mixed.norm(), atol=1e-5, rtol=1e-4)
    pooling.residual = 0.2
    assert not torch.allclose(pooling(states.tokens, states.mask)[1], pooled, atol=1e-3)


def test_items_without_a_real_token_pool_to_zeros_with_finite_gradients() -> None:
    pooling = RelationPooling(6, 8, heads=2, dropout=0.0, residual=0.8)
    tokens, mask = torch.randn(3, 4, 6), torch.tensor([[True] * 4, [False] * 4, [True, False, False, False]])
    looked_at: list[Tensor] = []
    pooling.relations.register_forward_pre_hook(lambda layer, inputs: looked_at.append(inputs[1]))
    pooled = pooling(tokens, mask)[1]
    assert looked_at[0].isfinite().any(2).all()  # kernels of attention differ in what they make of a row without any
    assert (pooled[1] == 0).all() and (pooled[0] != 0).all()
    pooled.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in pooling.parameters())
    assert mean_of_largest(tokens[:, :1], mask[:, :1])[0].equal(tokens[0, 0])


def test_divergence_is_the_mean_kl_of_both_directions_and_teaches_the_graph() -> None:
    with_graph, plain = torch.randn(2, 5, 5, requires_grad=True)
    loss = divergence(with_graph, plain)
    student, teacher = (np.exp(scores.detach().double().numpy() / 0.1) for scores in (with_graph, plain))
    rows = [entropy(target, now) for target, now in zip(teacher, student, strict=True)]
    columns = [entropy(target, now) for target, now in zip(teacher.T, student.T, strict=True)]
    assert float(loss.detach()) == pytest.approx((np.mean(rows) + np.mean(columns)) / 2, rel=1e-4)
    gradients = torch.autograd.grad(loss, [with_graph, plain], allow_unused=True)
    assert gradients[0].abs().sum() > 0 and gradients[1] is None


def prepared(folder: Path, **options: Any) -> tuple[HREM, dict[str, Any]]:
    """A model in training, without dropout, and a batch of the toy data: the same whatever the options."""
    model, data = matcher(**({"dropout": 0.0} | options)), ToyData(str(folder))
    trainer(folder, max_steps=0).fit(model, data)
    torch.manual_seed(0)
    return model.train(), dict(next(iter(data.train_dataloader())))


def test_the_loss_is_that_of_the_scores_without_and_with_graph_and_their_divergence(tmp_path: Path) -> None:
    model, pairs = prepared(tmp_path, relation_weight=0.7, agreement_weight=3.0)
    image, text, positives = model.encode_pairs(pairs)
    nodes = torch.cat([image.pooled, text.pooled])
    related = normalize(model.graph(nodes[None], relation_graph(image, text, positives, 0.5)[None])[0], dim=1)
    scores = [x[:16] @ x[16:].T for x in (nodes, related)]
    losses = [TripletLoss(warmup_steps=1000)(s, positives) for s in scores]
    expected = losses[0] + 0.7 * (losses[1] + 3.0 * divergence(scores[1], scores[0]))
    torch.testing.assert_close(model.training_loss(pairs), expected)


def test_without_a_graph_there_are_no_weights_of_one(tmp_path: Path) -> None:
    plain, pairs = prepared(tmp_path, relation_weight=0.0)
    assert not any("graph" in name for name, _ in plain.named_parameters())
    image, text, positives = plain.encode_pairs(pairs)
    expected = TripletLoss(warmup_steps=9)(image.pooled @ text.pooled.T, positives)
    torch.testing.assert_close(plain.training_loss(pairs), expected)


def test_both_losses_leave_their_warm_up_together(tmp_path: Path) -> None:
    model, pairs = prepared(tmp_path, loss=TripletLoss(warmup_steps=2))
    for _ in range(3):
        model.training_loss(pairs)
    assert model.loss.step == model.graph_loss.step == 3


def test_at_test_the_graph_is_gone(tmp_path: Path) -> None:
    model, pairs = prepared(tmp_path)
    model.eval()
    with torch.no_grad():
        for encode, inputs in ((model.encode_image, pairs["image"]), (model.encode_text, pairs["text"])):
            whole = encode(inputs)
            assert whole.tokens is None
            for weight in model.graph.parameters():
                weight.fill_(torch.nan)
            assert torch.equal(encode(inputs).pooled, whole.pooled)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": 3}, "dim 32 is not a multiple of heads 3"), ({"connections": 0.0}, "connections is 0.0")],
)
def test_impossible_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        matcher(**options)
    assert "\n" not in str(error.value)
