"""Attention and messages against loops over edges."""

import math

import torch
from torch.nn.functional import normalize

from itmbench.methods.mcr_dgn.bank import Contexts, Nodes
from itmbench.methods.mcr_dgn.context import Context, Edges
from itmbench.methods.mcr_dgn.graph import attention, messages, propagate


def some_edges() -> Edges:
    generator = torch.Generator().manual_seed(0)
    source = torch.stack([torch.randperm(9, generator=generator)[:4] for _ in range(3)])
    cosine, weight = (torch.rand(3, 4, generator=generator) for _ in range(2))
    weight[0] *= 0.3
    weight[1, 2:] = 0.0
    weight[2] = 0.0
    return Edges(source, cosine, weight)


def test_attention_is_a_softmax_that_fades_with_the_edges() -> None:
    edges = some_edges()
    shares = attention(edges)
    for row in range(3):
        terms = [
            w * math.exp(c / 0.1) for c, w in zip(edges.cosine[row].tolist(), edges.weight[row].tolist(), strict=True)
        ]
        strongest = float(edges.weight[row].max())
        expected = [strongest * term / sum(terms) if sum(terms) else 0.0 for term in terms]
        torch.testing.assert_close(shares[row], torch.tensor(expected))
    assert shares[0].sum() < 0.31 and not shares[2].any()


def test_kept_edges_share_the_attention_anew() -> None:
    edges = some_edges()
    kept = attention(edges, lambda shares: shares < shares.amax(1, keepdim=True))
    strongest = attention(edges).argmax(1)
    for row in range(2):
        assert kept[row, strongest[row]] == 0
        weight = edges.weight[row].clone()
        weight[strongest[row]] = 0
        torch.testing.assert_close(kept[row], attention(Edges(edges.source, edges.cosine, weight.expand(3, 4)))[row])


def test_messages_are_the_labels_of_neighbours_and_the_mean_label_where_these_fade() -> None:
    edges = some_edges()
    labels = (torch.rand(9, 5, generator=torch.Generator().manual_seed(1)) > 0.6).float()
    received, mean = messages(edges, labels), labels.mean(0)
    for row in range(3):
        expected = mean.clone()
        for source, share in zip(edges.source[row], attention(edges)[row], strict=True):
            expected = expected + share * (labels[source] - mean)
        torch.testing.assert_close(received[row], expected)
    torch.testing.assert_close(received[2], mean)
    assert ((received >= 0) & (received <= 1)).all()


def test_items_receive_all_labels_and_each_label_node_its_own() -> None:
    torch.manual_seed(0)
    item, of_labels = normalize(torch.randn(20, 6), dim=1), torch.randn(20, 3, 4)
    labels = (torch.rand(20, 3) > 0.5).float()
    contexts = Contexts(Context(item, 5, "mutual"), [Context(nodes, 5, "mutual") for nodes in of_labels.unbind(1)])
    queries = Nodes(normalize(torch.randn(4, 6), dim=1), torch.randn(4, 3, 4))
    items = propagate(queries, contexts, labels, "items")
    torch.testing.assert_close(items, messages(contexts.item.attach(queries.item), labels))
    regions = propagate(queries, contexts, labels, "labels")
    for label, context in enumerate(contexts.labels):
        alone = messages(context.attach(queries.labels[:, label]), labels[:, [label]])
        torch.testing.assert_close(regions[:, label], alone[:, 0])
    torch.testing.assert_close(propagate(queries, contexts, labels), (items + regions) / 2)


def test_a_training_item_receives_its_own_labels_through_no_node() -> None:
    torch.manual_seed(0)
    item, of_labels, labels = normalize(torch.randn(20, 6), dim=1), torch.randn(20, 3, 4), torch.rand(20, 3)
    contexts = Contexts(Context(item, 5, "nearest"), [Context(nodes, 5, "nearest") for nodes in of_labels.unbind(1)])
    queries = Nodes(item[:4], of_labels[:4])
    other = labels.clone()
    other[0] = 1 - other[0]
    mean = (labels - other).mean(0)
    hidden = contexts.item.copies(queries.item)
    assert hidden[0, 0] == 1
    change, edges = torch.zeros(2, 3), contexts.item.attach(queries.item, hidden)
    change[0] = (1 - attention(edges)[0].sum()) * mean  # through the mean label alone, as any pair of the bank
    for label, context in enumerate(contexts.labels):
        edges = context.attach(queries.labels[:, label], hidden)
        change[1, label] = (1 - attention(edges)[0].sum()) * mean[label]
    found = propagate(queries, contexts, labels)[0] - propagate(queries, contexts, other)[0]
    torch.testing.assert_close(found, change.mean(0), atol=1e-5, rtol=0)
    exposed = (
        messages(contexts.item.attach(queries.item), labels)[0] - messages(contexts.item.attach(queries.item), other)[0]
    )
    assert (exposed - change[0]).abs().max() > 0.1
