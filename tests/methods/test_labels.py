"""The label-supervised baselines: losses against slow loops, the label graph, switches, learning, and odd labels."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu
from toy import ToyData, toy_encoders, trainer

from itmbench.errors import InputError
from itmbench.methods.dcmh import DCMH
from itmbench.methods.dscmr import DSCMR
from itmbench.methods.gnn4cmr import GNN4CMR, LabelClassifiers, label_graph
from itmbench.methods.losses import label_error

METHODS: dict[str, Any] = {"dscmr": DSCMR, "dcmh": DCMH, "gnn4cmr": GNN4CMR}
every_method = pytest.mark.parametrize("name", METHODS)


def method(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return METHODS[name](**({"dim": 16, "lr": 3e-3} | toy_encoders() | options))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ToyData:
    return ToyData(str(tmp_path_factory.mktemp("toy")), labels=True, copies=2)


def attached(name: str, data: ToyData, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A method set up for the data, with a batch of 8 pairs in which labels and one image come again."""
    model = method(name, **options)
    trainer(data.root, max_steps=0).fit(model, data)
    corpus = data.corpus
    assert corpus.images is not None and corpus.labels is not None
    rows = [0, 1, 4, 5, 10, 15, 15, 16]
    texts = [2 * row for row in rows]
    texts[6] += 1
    return model, {
        "image": model.image.processor()([corpus.images[row] for row in rows], False),
        "text": model.text.processor()([corpus.texts[row] for row in texts], False),
        "image_index": torch.tensor(rows),
        "labels": torch.from_numpy(corpus.labels[rows]),
    }


def vectors(model: Any, batch: dict[str, Any]) -> tuple[list[list[float]], list[list[float]]]:
    return model.encode_image(batch["image"]).pooled.tolist(), model.encode_text(batch["text"]).pooled.tolist()


def together(batch: dict[str, Any]) -> list[list[bool]]:
    images, labels = batch["image_index"].tolist(), batch["labels"].tolist()
    size = range(len(images))
    return [
        [images[i] == images[j] or any(a and b for a, b in zip(labels[i], labels[j], strict=True)) for j in size]
        for i in size
    ]


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def cosine(one: list[float], other: list[float]) -> float:
    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


def distance(one: list[float], other: list[float]) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def unlikely(theta: float, positive: bool) -> float:
    return math.log(1 + math.exp(theta)) - positive * theta


def slow_dscmr(model: DSCMR, batch: dict[str, Any]) -> float:
    image, text = vectors(model, batch)
    shared, labels = together(batch), batch["labels"].tolist()
    assert model.classifier is not None
    wrong = sum(
        mean([distance(model.classifier(torch.tensor(v)).tolist(), y) for v, y in zip(items, labels, strict=True)])
        for items in (image, text)
    )
    likelihood = sum(
        mean([unlikely(cosine(a[i], b[j]) / 2, shared[i][j]) for i in range(8) for j in range(8)])
        for a, b in ((image, image), (text, text), (image, text))
    )
    apart = mean([distance(v, t) for v, t in zip(image, text, strict=True)])
    return wrong + model.alpha * likelihood + model.beta * apart


def slow_dcmh(model: DCMH, batch: dict[str, Any]) -> float:
    image, text = vectors(model, batch)
    shared, total = together(batch), 0.0
    for i in range(8):
        for j in range(8):
            total += unlikely(dot(image[i], text[j]) / 2, shared[i][j]) / 64
    return total


def slow_gnn4cmr(model: GNN4CMR, batch: dict[str, Any]) -> float:
    image, text = vectors(model, batch)
    shared, labels = together(batch), batch["labels"].tolist()
    assert model.classifiers is not None
    classifiers = model.classifiers().tolist()

    def contrast(a: list[list[float]], b: list[list[float]], itself: bool) -> float:
        rows = []
        for i in range(8):
            logits = [cosine(a[i], b[j]) / 0.22 for j in range(8)]
            own = [j for j in range(8) if shared[i][j] and (itself or i != j)]
            if own:
                denominator = math.log(sum(math.exp(logit) for logit in logits))
                rows.append(mean([denominator - logits[j] for j in own]))
        return mean(rows)

    loss = contrast(image, text, True) + contrast(text, image, True)
    loss += model.intra_weight * (contrast(image, image, False) + contrast(text, text, False))
    for items in (image, text):
        predicted = [[cosine(v, c) for c in classifiers] for v in items]
        loss += model.label_weight * mean([distance(p, y) for p, y in zip(predicted, labels, strict=True)])
    return loss


SLOW: dict[str, Any] = {"dscmr": slow_dscmr, "dcmh": slow_dcmh, "gnn4cmr": slow_gnn4cmr}


@every_method
@pytest.mark.parametrize("unlabelled", [False, True])
def test_loss_is_that_of_a_slow_loop(name: str, unlabelled: bool, data: ToyData) -> None:
    model, batch = attached(name, data)
    if unlabelled:
        batch["labels"][2:5] = 0
    assert model.training_loss(batch).item() == pytest.approx(SLOW[name](model, batch), rel=1e-4)


def test_dscmr_has_a_layer_of_its_own_and_one_in_common_for_each_modality(data: ToyData) -> None:
    model, batch = attached("dscmr", data)
    for made, encoded, own in (
        (model.encode_image(batch["image"]), model.image(batch["image"]), model.project["image"][0]),
        (model.encode_text(batch["text"]), model.text(batch["text"]), model.project["text"][0]),
    ):
        torch.testing.assert_close(made.pooled, model.common(own(encoded.pooled).clamp(min=0)))


@every_method
def test_half_precision_and_no_label_at_all_give_numbers(name: str, data: ToyData) -> None:
    model, batch = attached(name, data)
    exact = model.training_loss(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.training_loss(batch)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    batch["labels"].zero_()
    batch["image_index"] = torch.arange(8)
    for precise in (True, False):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            loss = model.training_loss(batch)
        loss.backward()
        assert loss.isfinite()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_label_error_is_the_mean_distance() -> None:
    predicted, labels = torch.tensor([[3.0, 5.0], [1.0, 0.0]]), torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8)
    assert label_error(predicted, labels).item() == 2.5


def test_label_graph_counts_what_occurs_together() -> None:
    labels = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]).float()
    graph = label_graph(labels)
    expected = torch.tensor(
        [[3 / 6, 2 / 6, 1 / 6, 0], [2 / 5, 2 / 5, 1 / 5, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 1]]
    )
    torch.testing.assert_close(graph, expected)


def test_classifiers_are_those_of_a_slow_graph_network() -> None:
    torch.manual_seed(0)
    graph = label_graph((torch.rand(20, 5) < 0.3).float())
    assert not torch.allclose(graph, graph.T)
    network = LabelClassifiers(graph, dim=6, layers=2)
    nodes: Tensor = network.vectors
    outputs = []
    layer: Any
    for layer in network.layers:
        torch.nn.init.normal_(layer.bias)
        weight, bias = layer.lin.weight, layer.bias
        rows = []
        for i in range(5):
            total = torch.stack([graph[i, j] * (weight @ nodes[j]) for j in range(5)]).sum(0)
            rows.append(leaky_relu(total + bias, 0.2))
        nodes = torch.stack(rows)
        outputs.append(nodes)
    torch.testing.assert_close(network(), network.out(torch.cat(outputs, dim=1)), rtol=1e-4, atol=1e-5)


def test_the_graph_is_of_the_training_labels_as_they_are_trained(tmp_path: Path) -> None:
    data = ToyData(str(tmp_path), labels=True, copies=2)
    data.corrupted_labels = 0.5
    corpus = data.corpus
    assert corpus.labels is not None and corpus.labels_trained_with is not None
    few = data.with_corpus(dataclasses.replace(corpus, train=corpus.train[:20]))
    model = method("gnn4cmr")
    trainer(tmp_path, max_steps=0).fit(model, few)
    used = model.training_labels(few.corpus)
    assert used.tolist() == corpus.labels_trained_with[:20].tolist() != corpus.labels[:20].tolist()
    network = model.classifiers
    torch.testing.assert_close(network.graph, label_graph(used))


def test_a_graph_network_has_a_layer() -> None:
    with pytest.raises(InputError, match=r"^GNN4CMR: layers is 0; give 1 or more$"):
        method("gnn4cmr", layers=0)
