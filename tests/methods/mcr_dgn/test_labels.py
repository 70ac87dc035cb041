"""Label nodes against a loop, and relevance vectors against the probability of a shared label."""

import math

import torch
from torch.nn.functional import layer_norm

from itmbench.encoders import Embeddings
from itmbench.methods.mcr_dgn.labels import LabelNodes, relevance_vectors


def test_labels_read_what_they_attend_to() -> None:
    torch.manual_seed(0)
    nodes = LabelNodes(width=6, labels=3)
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


def test_the_cosine_ranks_by_the_probability_of_a_shared_label() -> None:
    torch.manual_seed(0)
    image, text = 0.6 * torch.rand(30, 4), 0.6 * torch.rand(40, 4)
    images, texts = relevance_vectors(image, "image"), relevance_vectors(text, "text")
    torch.testing.assert_close(images.norm(dim=1), torch.ones(30))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(40))
    none = (1 - image.unsqueeze(1) * text.unsqueeze(0)).prod(2)
    scale = 4 * sum(1 / n for n in range(1, 5))
    torch.testing.assert_close(images @ texts.T * scale, -none.log(), atol=0.01, rtol=0)  # of at most 1.8
    certain = relevance_vectors(torch.ones(1, 4), "image")
    assert certain.isfinite().all() and (certain @ texts.T).isfinite().all()
