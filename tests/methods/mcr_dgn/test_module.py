"""MCR-DGN as a whole: its losses, bank, graph at test and choices; every switch; extremes."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
from toy import ToyData, toy_encoders, trainer

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.evaluated import Evaluated, Tables
from itmbench.methods.losses import InfoNCE, PairLikelihood
from itmbench.methods.mcr_dgn.bank import bank_rows
from itmbench.methods.mcr_dgn.module import MCRDGN
from itmbench.methods.relevance import relevance_vectors
from itmbench.methods.votes import LabelVotes
from itmbench.runner.audit import audit


def matcher(**options: Any) -> Any:
    torch.manual_seed(0)
    return MCRDGN(**({"dim": 32, "node_dim": 8, "k": 4, "lr": 3e-3, "dropout": 0.0} | toy_encoders() | options))


def prepared(folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model in training and a batch of the toy data: the same whatever the options."""
    model, data = matcher(**options), ToyData(str(folder), labels=True, copies=1)
    trainer(folder, max_steps=0).fit(model, data)
    torch.manual_seed(0)
    return model.train(), dict(next(iter(data.train_dataloader())))


def with_bank(folder: Path, **options: Any) -> tuple[Any, ToyData, L.Trainer]:
    """A model that has trained for an epoch, its data and its trainer."""
    model, data = matcher(**({"graph_weights": [0.5]} | options)), ToyData(str(folder), labels=True, copies=2)
    fit = trainer(folder, max_epochs=1, limit_val_batches=0)
    fit.fit(model, data)
    return model.eval(), data, fit


def encode(model: Any, data: ToyData, rows: list[int]) -> Tensor:
    """Test vectors of images and of their first texts, `[B, 2, V]`."""
    with torch.no_grad():
        image = model.encode_image(pictures(model, data, rows)).pooled
        text = model.encode_text(words(model, data, rows)).pooled
    return torch.stack([image, text], dim=1)


def pictures(model: Any, data: ToyData, rows: Any) -> Any:
    images = data.corpus.images
    assert images is not None
    return model.image.processor()([images[int(row)] for row in rows], False)


def words(model: Any, data: ToyData, rows: Any) -> Any:
    return model.text.processor()([data.corpus.texts[2 * int(row)] for row in rows], False)


def probabilities(model: Any, data: ToyData, rows: list[int]) -> tuple[Tensor, Tensor]:
    """Label probabilities of images by the encoder, and by the graph."""
    with torch.no_grad():
        items = model.embed(model.image(pictures(model, data, rows)), "image")
        return items.pooled[:, 32:].sigmoid(), model.received(items, "image")


def test_the_loss_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    weights = {"contrast_weight": 0.7, "intra_weight": 0.4, "likelihood_weight": 0.3, "label_weight": 2.0}
    model, batch = prepared(tmp_path, temperature=0.2, **weights)
    for weight in model.label_nodes.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    total, labels, vectors = torch.zeros(()), batch["labels"].float(), list[Tensor]()
    for modality, encoder in (("image", model.image), ("text", model.text)):
        items = encoder(batch[modality])
        vectors.append(normalize(model.project[modality](items.pooled), dim=1))
        logits = model.classifier(vectors[-1] * 32**0.5) + model.label_nodes[modality](items)
        total = total + 2.0 * binary_cross_entropy_with_logits(logits, labels) / 2
    positives = (labels @ labels.T > 0) | (batch["image_index"][:, None] == batch["image_index"])
    scores = vectors[0] @ vectors[1].T
    total = total + 0.7 * InfoNCE(0.2)(scores, positives) + 0.3 * PairLikelihood(5.0)(scores, positives)
    others = positives & ~torch.eye(len(positives), dtype=torch.bool)
    for items in vectors:
        total = total + 0.7 * 0.4 * InfoNCE(0.2)(items @ items.T, others)
    torch.testing.assert_close(model.training_loss(batch), total)


LOSSES: list[dict[str, Any]] = [
    {"temperature": 0.3},
    {"contrast_weight": 0.0},
    {"intra_weight": 0.0},
    {"likelihood_weight": 0.0},
    {"label_weight": 0.0},
    {"dropout": 0.5},
]


@pytest.mark.parametrize("options", LOSSES, ids=lambda options: next(iter(options)))
def test_every_option_of_training_changes_the_loss(options: dict[str, Any], tmp_path: Path) -> None:
    model, batch = prepared(tmp_path)
    changed, _ = prepared(tmp_path, **options)
    assert model.training_loss(batch).item() != pytest.approx(changed.training_loss(batch).item(), rel=1e-5)


GRAPHS: list[dict[str, Any]] = [
    {"k": 2},
    {"edges": "nearest"},
    {"nodes": "items"},
    {"nodes": "labels"},
    {"nodes": "none"},
    {"node_dim": 2},
    {"bank_size": 5},
    {"shuffle_labels": True},
    {"graph_weights": [0.2]},
]


@pytest.mark.parametrize("options", GRAPHS, ids=lambda options: next(iter(options)))
def test_every_option_of_the_graph_changes_test_embeddings_alone(options: dict[str, Any], tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path)
    changed, _, _ = with_bank(tmp_path, **options)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, changed.get_parameter(name)), name
    assert not torch.allclose(encode(model, data, [50, 63]), encode(changed, data, [50, 63]), atol=1e-4)


def test_the_bank_is_what_a_test_encodes_of_training_pairs(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, bank_size=10)
    held, corpus = model.bank.rows, data.corpus
    assert len(held) == len(model.bank) == 10 and np.isin(held, corpus.train).all()
    images, texts = bank_rows(corpus, 10)
    assert np.array_equal(held, images) and np.array_equal(corpus.text_to_image[texts], images)
    with torch.no_grad():
        image = model.embed(model.image(pictures(model, data, held)), "image")
        strings = [corpus.texts[int(row)] for row in texts]
        text = model.embed(model.text(model.text.processor()(strings, False)), "text")
    for items, name in ((image, "image"), (text, "text")):
        torch.testing.assert_close(getattr(model.bank, name), items.pooled[:, :32], atol=1e-5, rtol=0)
        torch.testing.assert_close(getattr(model.bank, f"{name}_labels"), items.tokens, atol=1e-5, rtol=1e-5)
        assert not getattr(model.bank, name).requires_grad
    assert corpus.labels is not None
    assert torch.equal(model.bank.labels, torch.from_numpy(corpus.labels[images]).float())


def test_an_item_is_a_mixture_of_what_the_encoder_and_what_the_graph_says(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path)
    predicted, received = probabilities(model, data, [50, 63])
    expected = relevance_vectors(0.5 * predicted + 0.5 * received, "image")
    torch.testing.assert_close(encode(model, data, [50, 63])[:, 0], expected)
    assert (predicted - received).abs().max() > 0.05


def test_validation_chooses_the_share_of_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [0.0, 0.5, 1.0]
    model, data = matcher(graph_weights=shares), ToyData(str(tmp_path), labels=True, copies=2)
    evaluate, best, seen = Evaluated.evaluate, 0, list[Tensor]()

    def spy(self: MCRDGN, tables: Tables, stage: str) -> Any:
        found = evaluate(self, tables, stage)
        seen.append(tables.images.pooled)
        found.metrics["mAP"] = 0.9 if len(seen) - 1 == best else 0.5
        return found

    monkeypatch.setattr(Evaluated, "evaluate", spy)
    for best, share in enumerate(shares):
        seen.clear()
        fit = trainer(tmp_path, max_epochs=1)
        fit.fit(model.train(), data)
        assert len(seen) == 3 and model.choices == {"graph_weight": share}
        model.eval()
        # What was compared is what a test encodes; the first image of the gallery is one of training.
        torch.testing.assert_close(seen[best][0], encode(model, data, [0])[0, 0], atol=1e-5, rtol=0)
        predicted, received = probabilities(model, data, [50])
        expected = relevance_vectors((1 - share) * predicted + share * received, "image")
        torch.testing.assert_close(encode(model, data, [50])[0, :1], expected, atol=1e-5, rtol=0)
        seen.clear()
        fit.test(model, data, verbose=False)
        assert len(seen) == 1 and model.choices == {"graph_weight": share}  # nothing is chosen at test
    assert float(model.state_dict()["graph_weight"]) == 1.0


def test_a_checkpoint_holds_the_bank(tmp_path: Path) -> None:
    model, data = matcher(), ToyData(str(tmp_path), labels=True, copies=1)
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(model, data)
    fit.save_checkpoint(tmp_path / "model.ckpt")
    expected = fit.test(model, data, verbose=False)[0]["test/mAP"]
    other = matcher()
    found = trainer(tmp_path).test(
        other, data, ckpt_path=str(tmp_path / "model.ckpt"), weights_only=True, verbose=False
    )
    assert found[0]["test/mAP"] == expected and torch.equal(other.bank.image, model.bank.image)
    assert other.choices == model.choices
    rows = data.corpus.stages["test"].queries[:2].tolist()
    alone = MCRDGN.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    torch.testing.assert_close(encode(alone, data, rows), encode(model.eval(), data, rows))


@pytest.mark.parametrize("options", [{}, {"edges": "nearest"}, {"nodes": "labels"}, {"nodes": "none"}])
def test_an_item_alone_and_in_a_batch_get_the_same_embedding(options: dict[str, Any], tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, **options)
    rows = [0, 3, 5, 35, 50, 63]  # items of training, which the bank holds, of validation and of test
    together = encode(model, data, rows)
    backwards = encode(model, data, rows[::-1]).flip(0)
    alone = torch.cat([encode(model, data, [row]) for row in rows])
    torch.testing.assert_close(backwards, together, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_a_training_item_does_not_receive_its_own_labels(tmp_path: Path) -> None:
    """Nobody tells the model that the bank holds it."""
    model, data, _ = with_bank(tmp_path, k=40)
    rows, labels = [*model.bank.rows[:6].tolist(), 50], model.bank.labels.clone()
    before, changes = probabilities(model, data, rows)[1], []
    for pair in range(6):
        model.bank.labels = labels.clone()
        model.bank.labels[pair] = 1 - labels[pair]
        changes.append((probabilities(model, data, rows)[1] - before).abs().amax(1))
    change, share = torch.stack(changes), 1 / len(model.bank)  # of a pair in the mean label, which reaches all
    assert change.diagonal().max() < 1.01 * share < change[:, 6].max()
    assert (change[:, :6] > 1.01 * share).any()


def test_wrong_labels_are_held_as_they_are_trained_with(tmp_path: Path) -> None:
    model, data = matcher(), ToyData(str(tmp_path), labels=True, copies=1)
    data.corrupted_labels = 0.5
    trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(model, data)
    held, trained, true = model.bank.rows.numpy(), data.corpus.labels_trained_with, data.corpus.labels
    assert trained is not None and true is not None
    assert (model.bank.labels.numpy() == trained[held]).all() and not (trained[held] == true[held]).all()


def test_shuffled_labels_are_those_of_other_pairs(tmp_path: Path) -> None:
    model, _, _ = with_bank(tmp_path)
    shuffled, _, _ = with_bank(tmp_path, shuffle_labels=True)
    assert torch.equal(shuffled.bank.labels.sum(0), model.bank.labels.sum(0))
    assert torch.equal(shuffled.bank.rows, model.bank.rows)
    assert (shuffled.bank.labels != model.bank.labels).any()


def test_without_a_graph_or_a_bank_an_item_is_its_encoding(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, nodes="none")
    assert not len(model.bank) and model.choices == {"graph_weight": 0.0} and not model.candidates()
    untrained = matcher(graph_weights=[0.5])
    trainer(tmp_path).test(untrained, data, verbose=False)
    assert untrained.choices == {"graph_weight": 0.0}
    for each in (model, untrained.eval()):
        with torch.no_grad():
            items = each.embed(each.image(pictures(each, data, [50])), "image")
        expected = relevance_vectors(items.pooled[:, 32:].sigmoid(), "image")
        torch.testing.assert_close(encode(each, data, [50])[:, 0], expected)


def test_a_trained_model_with_its_bank_passes_the_leak_audit(tmp_path: Path) -> None:
    model, data, fit = with_bank(tmp_path)
    assert [finding.name for finding in audit(fit, model, data) if not finding.passed] == []


def finite(loss: Tensor, model: MCRDGN) -> None:
    model.zero_grad()
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def some(pairs: dict[str, Any], count: int) -> dict[str, Any]:
    return {
        key: {name: part[:count] for name, part in value.items()} if isinstance(value, dict) else value[:count]
        for key, value in pairs.items()
    }


def test_extremes_have_finite_gradients(tmp_path: Path) -> None:
    """Half precision; a pair alone; no label at all; images that are all the same."""
    model, pairs = prepared(tmp_path, k=50)
    with torch.autocast("cpu", torch.bfloat16):
        finite(model.training_loss(some(pairs, 2)), model)
    finite(model.training_loss(some(pairs, 1)), model)
    finite(model.training_loss(pairs | {"labels": torch.zeros_like(pairs["labels"])}), model)
    same = {key: value[:1].expand_as(value) for key, value in pairs["image"].items()}
    finite(model.training_loss(pairs | {"image": same}), model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"bank_size": 0}, "bank_size 0"),
        ({"graph_weights": []}, "graph_weights .* give one or more"),
        ({"graph_weights": [-1.0]}, "each from 0 to 1"),
        ({"graph_weights": [2.0]}, "each from 0 to 1"),
        ({"votes": LabelVotes()}, "remove votes"),
    ],
)
def test_impossible_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        matcher(**options)
    assert "\n" not in str(error.value)


def test_a_corpus_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no labels, and MCRDGN needs labels"):
        trainer(tmp_path).fit(matcher(), ToyData(str(tmp_path)))


def test_items_without_tokens_are_embedded(tmp_path: Path) -> None:
    model, _, _ = with_bank(tmp_path)
    items = Embeddings(torch.randn(2, 32), torch.randn(2, 3, 32), torch.tensor([[True] * 3, [False] * 3]))
    with torch.no_grad():
        assert model.at_test(model.embed(items, "text"), "text").pooled.isfinite().all()
