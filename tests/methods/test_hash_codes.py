"""The hash head: its loss against a loop, codes of every label method at test, and what does not go together."""

import math
from typing import Any

import pytest
import torch
from methods.test_contract import LABELS, common, method
from toy import ToyData, trainer

from itmbench.errors import InputError
from itmbench.evaluation import CaptionProtocol, HashProtocol, LabelProtocol
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.evaluated import EvaluationCallback
from itmbench.methods.hash_codes import QUANTISATION, HashHead
from itmbench.methods.votes import LabelVotes

HASHED = ["dual_encoder", *LABELS]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ToyData:
    return ToyData(str(tmp_path_factory.mktemp("toy")), labels=True, copies=2)


class Keep(EvaluationCallback):
    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}

    def on_encoded(self, model: Any, stage: str, images: Any, texts: Any) -> None:
        self.tables = {"image": images, "text": texts}

    def on_evaluated(self, model: Any, stage: str, evaluation: Any) -> None:
        self.metrics = evaluation.metrics


def test_loss_is_that_of_a_slow_loop() -> None:
    torch.manual_seed(0)
    head, positives = HashHead(6, 16), torch.rand(5, 5) < 0.4
    positives = positives | positives.T
    items = {"image": 3 * torch.randn(5, 6), "text": torch.randn(5, 6)}
    loss = head.loss(items["image"], items["text"], positives).item()
    codes = {}
    for modality, vectors in items.items():
        linear = head.map[modality][0].weight.double()  # type: ignore[index]
        unit = vectors.double() / vectors.double().norm(dim=1, keepdim=True) * math.sqrt(6)
        bits = unit @ linear.T
        bits = (bits - bits.mean(0)) / (bits.var(0, unbiased=False) + 1e-5).sqrt()
        codes[modality] = bits.tanh().tolist()
    expected = 0.0
    for one, other in (("image", "text"), ("image", "image"), ("text", "text")):
        for row, a in enumerate(codes[one]):
            for column, b in enumerate(codes[other]):
                theta = 5 / 16 * sum(x * y for x, y in zip(a, b, strict=True))
                expected += (math.log(1 + math.exp(theta)) - float(positives[row, column]) * theta) / 25
    for rows in codes.values():
        expected += QUANTISATION * sum((abs(x) - 1) ** 2 for row in rows for x in row) / 80
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", HASHED)
def test_codes_are_trained_and_evaluated_by_hamming_distance(name: str, data: ToyData) -> None:
    model, keep = method(name, hash_bits=16), Keep()
    fit = trainer(data.root, max_epochs=2, callbacks=[keep])
    before = {key: value.clone() for key, value in model.named_parameters()}
    fit.fit(model, data)
    head = [key for key in dict(model.named_parameters()) if key.startswith("hash_head")]
    assert head and all(key not in before or not model.get_parameter(key).equal(before[key]) for key in head)
    fit.test(model, data, verbose=False)
    assert model.evaluated_by == HashProtocol(bits=16)
    assert {items.pooled.shape[1] for items in keep.tables.values()} == {16}
    assert all(0 < float(items.pooled.abs().max()) <= 1 for items in keep.tables.values())
    signs = {key: type(items)(items.pooled.sign()) for key, items in keep.tables.items()}
    again = HashProtocol(bits=16).evaluate(data.corpus, "test", signs["image"], signs["text"])
    assert keep.metrics == again.metrics
    assert "i2t/P@h16" in keep.metrics and not any("NDCG" in key for key in keep.metrics)


@pytest.mark.parametrize("name", HASHED)
def test_without_bits_nothing_changes(name: str, data: ToyData) -> None:
    model = method(name)
    trainer(data.root, max_steps=0).fit(model, data)
    assert model.hash_head is None and isinstance(model.evaluated_by, LabelProtocol)
    assert not isinstance(model.evaluated_by, HashProtocol)


def test_the_graph_of_mcr_dgn_changes_its_codes(data: ToyData) -> None:
    model = method("mcr_dgn", hash_bits=64)
    trainer(data.root, max_epochs=1).fit(model, data)
    model.eval()
    items = model.embed(model.text(model.text.processor()(["a red square", "blue"], False)), "text")
    codes = []
    for weight in (0.0, 0.5):
        model.choose(weight)
        codes.append(model.at_test(items, "text").pooled)
    assert codes[0].shape == (2, 64) and not torch.equal(*codes)


def test_the_protocol_keeps_its_options_and_the_length_of_codes() -> None:
    options = {"cutoffs": (7,), "normaliser": "mith", "ties": "optimistic"}
    protocol = LabelProtocol(**options)  # type: ignore[arg-type]
    model = DualEncoder(hash_bits=128, protocol=protocol, **common())
    assert model.evaluated_by == HashProtocol(**options, bits=128)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hash_bits": 24}, "hash_bits is 24; give 16, 32, 64 or 128"),
        ({"hash_bits": 16, "votes": LabelVotes()}, "codes are made from vectors without votes; remove votes"),
        ({"hash_bits": 16, "protocol": CaptionProtocol()}, "hash codes need a label protocol"),
        ({"hash_bits": 16, "rank_by": "relevance"}, "codes are made from vectors; remove rank_by or hash_bits"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^GNN4CMR: {message}"):
        method("gnn4cmr", **options)


def test_codes_need_labels(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="has no labels, and DualEncoder needs labels"):
        trainer(tmp_path, max_steps=1).fit(method("dual_encoder", hash_bits=16), ToyData(str(tmp_path)))
