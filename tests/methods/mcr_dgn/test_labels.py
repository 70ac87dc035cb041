"""Label nodes against a loop."""

import math

import torch
from torch.nn.functional import layer_norm

from itmbench.encoders import Embeddings
from itmbench.methods.mcr_dgn.labels import LabelNodes


def test_labels_read_what_they_attend_to() -> None:
    torch.manual_seed(0)
    nodes = LabelNodes(width=6, labels=3, size=4)
    items = Embeddings(torch.randn(3, 6), torch.randn(3, 5, 6), torch.arange(5) < torch.tensor([[5], [2], [0]]))
    assert not nodes(items).any()  # before training
    for weight in nodes.parameters():
        torch.nn.init.normal_(weight)
    found, attention = nodes(items), nodes.attention(items)
    assert items.tokens is not None and items.mask is not None
    for row in range(3):
        for label in range(3):
            tokens = layer_norm(items.tokens[row][items.mask[row]], (6,))
            expected = 0.0
            if len(tokens):
                weights = (tokens @ nodes.attend.weight[label]).softmax(0)
                torch.testing.assert_close(attention[row, : len(tokens), label], weights)
                expected = float((weights * (tokens @ nodes.read.weight[label] + nodes.read.bias[label])).sum())
            assert math.isclose(found[row, label].item(), expected, abs_tol=1e-5)
    assert not attention[1, 2:].any() and not attention[2].any()
    found.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in nodes.parameters())


def test_a_label_node_is_what_it_attends_to_in_the_principal_directions() -> None:
    torch.manual_seed(0)
    nodes = LabelNodes(width=6, labels=3, size=4)
    torch.nn.init.normal_(nodes.attend.weight)
    mask = torch.arange(5) < torch.tensor([[5], [2], [4]])
    items = Embeddings(torch.randn(3, 6), torch.randn(3, 5, 6) * torch.arange(1.0, 7.0), mask)
    assert items.tokens is not None
    nodes.fit_basis(items)
    tokens = layer_norm(items.tokens[mask], (6,))
    _, variances, directions = torch.linalg.svd(tokens - tokens.mean(0))
    torch.testing.assert_close(nodes.basis @ nodes.basis.T, directions[:4].T @ directions[:4], atol=1e-4, rtol=0)
    assert variances[3] > 1.05 * variances[4]
    weights = nodes.attention(items)
    expected = torch.einsum("bnc,bnw->bcw", weights, layer_norm(items.tokens, (6,))) @ nodes.basis
    torch.testing.assert_close(nodes.nodes(items), expected)


def test_a_basis_is_no_wider_than_the_tokens() -> None:
    assert LabelNodes(width=6, labels=3, size=64).basis.shape == (6, 6)
