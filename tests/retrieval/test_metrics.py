from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from itmbench.errors import InputError
from itmbench.retrieval import caption_retrieval, label_retrieval
from itmbench.retrieval.metrics import CaptionRetrieval, LabelRetrieval


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 6, generator=generator)
    owner = torch.randint(40, (130,), generator=generator)
    return images, images[owner] + torch.randn(130, 6, generator=generator), owner


def test_captions_in_any_order_and_batches(pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    images, texts, owner = pairs
    metric = CaptionRetrieval(owner, ks=(1, 4))
    for modality, table in (("text", texts), ("image", images)):
        order = torch.randperm(len(table))
        padded = torch.cat([order, order[:9]])  # as a distributed sampler pads
        for batch in padded.split(17):
            metric.update(table[batch], batch, modality)  # type: ignore[arg-type]
    assert metric.compute() == caption_retrieval(images, texts, owner, ks=(1, 4))
    optimistic = CaptionRetrieval(owner, ties="optimistic")
    for modality, n in (("image", 40), ("text", 130)):
        optimistic.update(torch.ones(n, 2), torch.arange(n), modality)  # type: ignore[arg-type]
    assert optimistic.compute()["rSum"] > 500  # some images own no text


def test_labels_in_any_order_and_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    tables = torch.randn(30, 6, generator=generator), torch.randn(90, 6, generator=generator)
    hot = torch.randint(2, (30, 4), generator=generator), torch.randint(2, (90, 4), generator=generator)
    metric = LabelRetrieval(cutoffs=(5,), normaliser="min")
    for side, table, labels in zip(("gallery", "query"), tables[::-1], hot[::-1], strict=True):
        for batch in torch.cat([torch.randperm(len(table)), torch.tensor([3, 3])]).split(11):
            metric.update(table[batch], batch, labels[batch], side)  # type: ignore[arg-type]
    assert metric.compute() == label_retrieval(*tables, *hot, (5,), "min")
    metric.reset()
    with pytest.raises(InputError, match="query: nothing to evaluate"):
        metric.compute()


class _OtherProcess:
    """What a second process would send, in the order in which states are gathered."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def gather(self, mine: Tensor, group: Any = None) -> list[Tensor]:
        name = next(key for key, value in self.mine.items() if value is mine or (value and torch.equal(value[0], mine)))
        return [mine, torch.cat(self.metric.metric_state[name])]  # type: ignore[arg-type]

    mine: dict[str, Any]


def test_processes_are_concatenated_and_padding_counts_once(pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    images, texts, owner = pairs
    other = CaptionRetrieval(owner)
    link = _OtherProcess(other)
    metric = CaptionRetrieval(owner, dist_sync_fn=link.gather, distributed_available_fn=lambda: True)
    for part, which in ((metric, 0), (other, 1)):
        for modality, table in (("image", images), ("text", texts)):
            shard = torch.arange(len(table) + which)[which::2] % len(table)  # the last one wraps round to item 0
            part.update(table[shard], shard, modality)  # type: ignore[arg-type]
    link.mine = dict(metric.metric_state)
    assert metric.compute() == caption_retrieval(images, texts, owner)


def test_a_missing_item_is_an_error(pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    images, texts, owner = pairs
    metric = CaptionRetrieval(owner)
    metric.update(images, torch.arange(40), "image")
    metric.update(texts[:-1], torch.arange(129), "text")
    with pytest.raises(InputError, match="text indices: 129 of them"):
        metric.compute()
    with pytest.raises(InputError, match="image: 39 indices for 40 embeddings"):
        metric.update(images, torch.arange(39), "image")
