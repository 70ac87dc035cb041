"""MCR-DGN as a whole: its nodes, losses, bank and inference; every switch; extremes."""

from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pytest
import torch
from methods.test_base import trainer
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
from toy import ToyData, toy_encoders

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Matcher
from itmbench.methods.evaluated import Tables
from itmbench.methods.losses import InfoNCE, PairLikelihood
from itmbench.methods.mcr_dgn.bank import bank_rows
from itmbench.methods.mcr_dgn.module import MCRDGN, ItemNodes, read_out
from itmbench.methods.relevance import relevance_vectors
from itmbench.methods.votes import LabelVotes
from itmbench.runner.audit import audit


def matcher(**options: Any) -> Any:
    """A small model that looks across the modalities as far as within them."""
    torch.manual_seed(0)
    model = MCRDGN(**({"dim": 32, "k": 4, "step": 0.5, "lr": 3e-3, "dropout": 0.0} | toy_encoders() | options))
    for name, weight in model.named_parameters():
        if name.endswith(".step"):
            torch.nn.init.constant_(weight, weight.max().item())
    return model


def prepared(folder: Path, labels: bool = True, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model in training and a batch of the toy data: the same whatever the options."""
    model, data = matcher(**options), ToyData(str(folder), labels=labels, copies=1)
    trainer(folder, max_steps=0).fit(model, data)
    torch.manual_seed(0)
    return model.train(), dict(next(iter(data.train_dataloader())))


def with_bank(folder: Path, labels: bool = True, **options: Any) -> tuple[Any, ToyData, L.Trainer]:
    """A model that has trained for an epoch, its data and its trainer."""
    model, data = matcher(**options), ToyData(str(folder), labels=labels, copies=2)
    fit = trainer(folder, max_epochs=1, limit_val_batches=0)
    fit.fit(model, data)
    return model.eval(), data, fit


def test_nodes_are_the_pooled_vector_and_what_queries_attend_to() -> None:
    torch.manual_seed(0)
    made = ItemNodes(width=6, dim=4, concepts=2)
    items = Embeddings(torch.randn(3, 6), torch.randn(3, 5, 6), torch.arange(5) < torch.tensor([[5], [2], [0]]))
    nodes, raw = made(items)
    assert items.tokens is not None and items.mask is not None
    for row in range(3):
        torch.testing.assert_close(nodes[row, 0], normalize(made.project(items.pooled[row]), dim=0))
        for concept in range(2):
            tokens = items.tokens[row][items.mask[row]]
            pooled = torch.zeros(6)
            if len(tokens):
                weights = (made.key(tokens) @ made.queries[concept]).softmax(0)
                pooled = weights @ tokens
            torch.testing.assert_close(raw[row, 1 + concept], normalize(pooled, dim=0))
            expected = normalize(made.project_concept(pooled), dim=0)
            torch.testing.assert_close(nodes[row, 1 + concept], expected)
    torch.testing.assert_close(read_out(nodes)[1], normalize(nodes[1].mean(0), dim=0))
    nodes.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in made.parameters())


@pytest.mark.parametrize("labels", [False, True])
def test_the_loss_is_that_of_both_embeddings_and_their_distance(labels: bool, tmp_path: Path) -> None:
    weights = {"contrast_weight": 0.7, "intra_weight": 0.4, "likelihood_weight": 0.3, "label_weight": 2.0}
    weights["temperature"] = 0.2
    model, pairs = prepared(tmp_path, labels, graph_weight=0.6, consistency_weight=5.0, **weights)
    image, text, positives = model.encode_pairs(pairs)
    related = model._related(image, text, pairs["image_index"])
    vectors = image.pooled[:, :32], text.pooled[:, :32]
    read = image.pooled[:, 32:], text.pooled[:, 32:]  # by the labels, from the tokens
    assert read[0].shape[1] == (8 if labels else 0)

    def loss(pair: tuple[Tensor, Tensor], classifier: torch.nn.Linear | None) -> Tensor:
        scores = pair[0] @ pair[1].T
        total = 0.7 * InfoNCE(0.2)(scores, positives) + 0.3 * PairLikelihood(5.0)(scores, positives)
        others = positives & ~torch.eye(len(positives), dtype=torch.bool)
        for items in pair:
            total = total + 0.7 * 0.4 * InfoNCE(0.2)(items @ items.T, others)
        if labels:
            assert classifier is not None
            for items, tokens in zip(pair, read, strict=True):
                logits = classifier(items * 32**0.5) + tokens
                total = total + binary_cross_entropy_with_logits(logits, pairs["labels"].float())
        return total

    apart = sum((1 - torch.cosine_similarity(a, b)).mean() for a, b in zip(vectors, related, strict=True))
    plain, graph = model.plain_losses.classifier, model.graph_losses.classifier
    expected = loss(vectors, plain) + 0.6 * loss(related, graph) + 5.0 * apart
    torch.testing.assert_close(model.training_loss(pairs), expected)


def test_the_encoder_follows_the_graph_and_not_the_reverse(tmp_path: Path) -> None:
    model, pairs = prepared(tmp_path, consistency_weight=1.0)
    off, _ = prepared(tmp_path, consistency_weight=0.0)
    for each in (model, off):
        each.training_loss(pairs).backward()
    for weight, other in zip(model.graph.parameters(), off.graph.parameters(), strict=True):
        assert weight.grad is not None and other.grad is not None
        torch.testing.assert_close(weight.grad, other.grad)
    assert not torch.allclose(
        model.item_nodes["image"].project.weight.grad, off.item_nodes["image"].project.weight.grad
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "concepts": {"concepts": 0},
    "k": {"k": 1},
    "union": {"edges": "union"},
    "intra": {"blocks": "intra"},
    "cross": {"blocks": "cross"},
    "step by step": {"update": "step"},
    "static": {"update": "static"},
    "uniform": {"attention": "uniform"},
    "no graph": {"layers": 0},
    "one layer": {"layers": 1},
    "small step": {"step": 0.1},
    "temperature": {"temperature": 0.3},
    "contrast": {"contrast_weight": 0.0},
    "within": {"intra_weight": 0.0},
    "likelihood": {"likelihood_weight": 0.0},
    "labels": {"label_weight": 0.0},
    "graph": {"graph_weight": 0.0},
    "consistency": {"consistency_weight": 0.1},
    "dropout": {"dropout": 0.5},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_loss(name: str, tmp_path: Path) -> None:
    model, pairs = prepared(tmp_path)
    changed, _ = prepared(tmp_path, **OPTIONS[name])
    # Weights are drawn one after another: with fewer of them, all others would differ and the loss with them.
    own = {key: value for key, value in changed.state_dict().items() if "step" in key or "scale" in key}
    same = {
        key: value
        for key, value in model.state_dict().items()
        if value.shape == changed.state_dict().get(key, value).shape
    }
    changed.load_state_dict(same | own, strict=False)
    assert model.training_loss(pairs).item() != pytest.approx(changed.training_loss(pairs).item(), rel=1e-5)


def test_nothing_is_chosen_but_on_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = matcher(), ToyData(str(tmp_path), labels=True, copies=2)
    measured: list[str] = []

    def evaluate(self: Matcher, tables: Tables, stage: str) -> Any:
        measured.append(stage)
        return true_evaluate(self, tables, stage)

    true_evaluate = Matcher.measured
    monkeypatch.setattr(Matcher, "measured", evaluate)
    fit = trainer(tmp_path, max_epochs=1, check_val_every_n_epoch=2, num_sanity_val_steps=2)
    fit.fit(model, data)
    assert model._filled_at == fit.global_step > 0  # after the epoch, not before it
    before = (bool(model.uses_graph), float(model.label_vote))
    fit.test(model, data, verbose=False)
    assert measured == ["test"] and (bool(model.uses_graph), float(model.label_vote)) == before
    trainer(tmp_path, max_epochs=1).fit(model, data)
    assert measured[1:] == ["val"] * len(model.candidates()) and len(measured) > 2


def test_training_attaches_to_the_batch_or_to_the_bank(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, context="bank")
    pairs = dict(next(iter(data.train_dataloader())))
    losses = {}
    model.train()
    for model.context in ("batch", "bank"):
        losses[model.context] = model.training_loss(pairs)
    assert losses["batch"].item() != pytest.approx(losses["bank"].item(), rel=1e-5)
    losses["bank"].backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.graph.parameters())
    # A training item that is in the bank sees neither itself nor its text there.
    image, text, _ = model.encode_pairs(pairs)
    seen: list[Tensor] = []
    model.graph.register_forward_hook(lambda graph, inputs, done: seen.extend(step.edges for step in done))
    model._related(image, text, pairs["image_index"])
    bank = model.bank.context(model.k, "all")
    assert bank is not None and np.isin(pairs["image_index"], model.bank.item).all()
    item = pairs["image_index"].repeat_interleave(3).repeat(2)
    assert all((item[edges.target] != bank.nodes.item[edges.source]).all() for edges in seen)  # type: ignore[attr-defined]
    assert len(seen) == 2 and len(seen[0])


def test_the_bank_is_what_a_test_encodes_of_training_pairs(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, bank_size=60)
    held = model.bank.item[model.bank.item >= 0]
    assert len(held) == 10 and len(model.bank.image) == 10  # 60 nodes, six a pair
    assert np.isin(held, data.corpus.train).all()
    assert not np.isin(held, np.r_[data.corpus.stages["val"].queries, data.corpus.stages["test"].queries]).any()
    corpus = data.corpus
    assert corpus.images is not None
    pictures = model.image.processor()([corpus.images[int(row)] for row in held], False)
    images, texts = bank_rows(corpus, 10)
    words = model.text.processor()([corpus.texts[int(row)] for row in texts], False)
    with torch.no_grad():
        nodes = model.item_nodes["image"](model.image(pictures))[0], model.item_nodes["text"](model.text(words))[0]
    assert np.array_equal(held, images)
    torch.testing.assert_close(model.bank.image, nodes[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.bank.text, nodes[1], atol=1e-5, rtol=0)
    assert not model.bank.image.requires_grad


def test_the_bank_is_encoded_as_a_test_does_and_training_goes_on(tmp_path: Path) -> None:
    model, data = matcher(), ToyData(str(tmp_path), copies=1)
    modes: list[tuple[bool, bool]] = []
    model.item_nodes["text"].register_forward_hook(
        lambda nodes, *_: modes.append((nodes.training, torch.is_grad_enabled()))
    )
    for _ in range(2):  # a second training counts its steps anew
        trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(model, data)
    epoch = [(True, True)] * 2 + [(False, False)] * 2
    assert modes == epoch * 2 and model.training


def test_a_training_item_at_test_does_not_see_itself_or_its_text(tmp_path: Path) -> None:
    """Nobody tells the model that the bank holds it."""
    model, data, _ = with_bank(tmp_path, edges="union", k=40)
    bank = model.bank.context(model.k, "all")
    assert bank is not None and data.corpus.images is not None
    rows = model.bank.item[:5]
    pictures = model.image.processor()([data.corpus.images[int(row)] for row in rows], False)
    with torch.no_grad():
        done = model.propagate("image", *model.item_nodes["image"](model.image(pictures)))
    for step in done:
        seen = bank.nodes.item[step.edges.source]
        assert len(seen) and (seen != rows.repeat_interleave(3)[step.edges.target]).all()
        assert set(seen.tolist()) >= set(rows.tolist())  # but each other


def test_the_bank_is_fresh_at_every_validation_and_survives_a_checkpoint(tmp_path: Path) -> None:
    class Watch(L.Callback):
        found: ClassVar[list[Tensor]] = []

        def on_validation_batch_start(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
            self.found.append(pl_module.bank.image.clone())

    # With the bank, training attaches to what the validation before it may have found in the bank.
    model, data = matcher(context="bank"), ToyData(str(tmp_path), labels=True, copies=1)
    watch = Watch()
    fit = trainer(tmp_path, max_epochs=2, callbacks=[watch])
    fit.fit(model, data)
    first, last = watch.found[0], watch.found[-1]
    assert first.abs().sum() > 0 and not torch.equal(first, last) and torch.equal(last, model.bank.image)
    fit.save_checkpoint(tmp_path / "model.ckpt")
    expected = fit.test(model, data, verbose=False)[0]["test/mAP"]
    other = matcher()
    found = trainer(tmp_path).test(
        other, data, ckpt_path=str(tmp_path / "model.ckpt"), weights_only=True, verbose=False
    )
    assert found[0]["test/mAP"] == expected
    assert torch.equal(other.bank.image, model.bank.image)


def encode(model: MCRDGN, data: ToyData, rows: list[int]) -> Tensor:
    """Pooled vectors of images and of their first texts."""
    corpus = data.corpus
    assert corpus.images is not None
    with torch.no_grad():
        image = model.encode_image(model.image.processor()([corpus.images[row] for row in rows], False)).pooled
        text = model.encode_text(model.text.processor()([corpus.texts[2 * row] for row in rows], False)).pooled
    return torch.stack([image, text], dim=1)


INDUCTIVE: list[dict[str, Any]] = [
    {"inference": "anchor"},
    {"inference": "anchor", "update": "static", "edges": "union"},
    {"inference": "encoder"},
    {"inference": "auto"},
]


@pytest.mark.parametrize("options", INDUCTIVE)
def test_an_item_alone_and_in_a_batch_get_the_same_embedding(options: dict[str, Any], tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, **options)
    rows = [0, 3, 5, 35, 50, 63]  # items of training, which the bank holds, of validation and of test
    together = encode(model, data, rows)
    backwards = encode(model, data, rows[::-1]).flip(0)
    alone = torch.cat([encode(model, data, [row]) for row in rows])
    torch.testing.assert_close(backwards, together, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_what_inference_changes(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, labels=False)
    rows = [0, 3, 50, 63]
    found = dict[str, Tensor]()
    for model.inference in ("anchor", "encoder", "transductive"):
        found[model.inference] = encode(model, data, rows)
        assert model.choices == {"graph_at_test": model.inference != "encoder", "label_vote": 0.0}
    model.eval()
    for one, other in (("anchor", "encoder"), ("anchor", "transductive"), ("encoder", "transductive")):
        assert not torch.allclose(found[one], found[other], atol=1e-4), (one, other)
    model.inference = "transductive"
    torch.testing.assert_close(encode(model, data, [50]), found["encoder"][2:3])  # nobody else to look at


def test_validation_chooses_and_the_checkpoint_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, _ = with_bank(tmp_path, labels=False)
    measured: list[Tensor] = []
    evaluate, quality = Matcher.measured, {"encoder": 0.3, "anchor": 0.2}

    def spy(self: MCRDGN, tables: Tables, stage: str) -> Any:
        found = evaluate(self, tables, stage)
        measured.append(tables.images.pooled)
        found.metrics["rSum"] = list(quality.values())[(len(measured) - 1) % 2]
        return found

    monkeypatch.setattr(Matcher, "measured", spy)
    for better in (False, True):
        quality["anchor"] = 0.4 if better else 0.2
        measured.clear()
        again = trainer(tmp_path, max_epochs=1)
        again.fit(model.train(), data)
        assert len(measured) == 2 and bool(model.uses_graph) is better
        assert again.callback_metrics["val/objective"] == pytest.approx(max(quality.values()))
        assert model.choices["graph_at_test"] is better
        ways = dict[str, Tensor]()
        model.eval()
        for model.inference in ("encoder", "anchor", "auto"):
            ways[model.inference] = encode(model, data, [0, 50])
        assert torch.equal(ways["auto"], ways["anchor" if better else "encoder"])
        assert not torch.equal(ways["anchor"], ways["encoder"])
        # What was compared are these two ways.
        first = int(data.corpus.stages["val"].images[0])
        for half, way in enumerate(("encoder", "anchor")):
            model.inference = way
            torch.testing.assert_close(measured[half][0], encode(model, data, [first])[0, 0], atol=1e-5, rtol=0)
        model.inference = "auto"
        measured.clear()
        again.test(model, data, verbose=False)
        assert model.choices["graph_at_test"] is better
        assert len(measured) == 1 and measured[0].shape[1] == 32
    assert model.state_dict()["uses_graph"]


def test_labels_of_what_an_item_looks_at_count_as_much_as_validation_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, _ = with_bank(tmp_path, label_votes=[0, 0.5, 1])
    rows, evaluate, best = [0, 3, 50, 63], Matcher.measured, 0
    seen: list[Tensor] = []

    def spy(self: MCRDGN, tables: Tables, stage: str) -> Any:
        found = evaluate(self, tables, stage)
        seen.append(tables.images.pooled)
        found.metrics["mAP"] = 0.9 if len(seen) - 1 == best else 0.5
        return found

    monkeypatch.setattr(Matcher, "measured", spy)
    choices = [(graph, vote) for graph in (False, True) for vote in (0.0, 0.5, 1.0)]
    for best, (graph, vote) in enumerate(choices):
        seen.clear()
        again = trainer(tmp_path, max_epochs=1)
        again.fit(model.train(), data)
        assert len(seen) == 6 and model.choices == {"graph_at_test": graph, "label_vote": vote}
        model.eval()
        found = encode(model, data, rows)
        # What was compared is what a test encodes; the first image of the gallery is one of training.
        torch.testing.assert_close(seen[best][0], encode(model, data, [0])[0, 0], atol=1e-5, rtol=0)
        # It is made of label probabilities, a share of which are votes.
        assert data.corpus.images is not None
        picture = model.image.processor()([data.corpus.images[50]], False)
        with torch.no_grad():
            nodes, raw, read = model.nodes_of(model.image(picture), "image")
            described, voted = model.with_graph("image", nodes, raw, read)
            if not graph:
                described = (model.plain_losses.logits(read_out(nodes), read)).sigmoid()
        expected = relevance_vectors((1 - vote) * described + vote * voted, "image")
        torch.testing.assert_close(found[2, :1], expected, atol=1e-5, rtol=0)
    assert float(model.state_dict()["label_vote"]) == 1.0


def test_without_its_loss_the_graph_is_left_out_of_training_and_still_votes(tmp_path: Path) -> None:
    model, pairs = prepared(tmp_path, graph_weight=0.0, inference="votes", label_votes=[0.5])
    calls: list[Any] = []
    model.graph.register_forward_hook(lambda *given: calls.append(given))
    model.training_loss(pairs).backward()
    assert not calls
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)
    trained, data, _ = with_bank(tmp_path, graph_weight=0.0, inference="votes", label_votes=[0.5])
    voted = encode(trained, data, [50])
    trained.inference = "encoder"
    assert not torch.allclose(voted, encode(trained, data, [50]), atol=1e-3)


def test_controls_replace_the_sources_of_edges_or_the_labels_of_pairs(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, inference="anchor")
    assert model.bank.labels is not None and data.corpus.labels is not None
    shuffled, _, _ = with_bank(tmp_path, inference="anchor", control="shuffled_labels")
    held = shuffled.bank.item[: len(shuffled.bank)]
    labels = shuffled.bank.labels[: len(held)]
    assert torch.equal(labels.sum(0), model.bank.labels[: len(held)].sum(0))
    assert (labels.long() != torch.from_numpy(data.corpus.labels[held]).long()).any()
    random, pairs = prepared(tmp_path, control="random_edges")
    image, text, _ = random.encode_pairs(pairs)
    seen: list[Any] = []
    random.graph.register_forward_hook(lambda graph, inputs, done: seen.extend((inputs, step.edges) for step in done))
    random._related(image, text, pairs["image_index"])
    item = pairs["image_index"].repeat_interleave(3).repeat(2)
    for (_, context, excluded, queries), edges in seen[:1]:
        true = context.attach(queries, excluded)
        assert len(edges) and (item[edges.target] != context.nodes.item[edges.source]).all()
        assert torch.equal(edges.kind % 2, context.modality[edges.source])
        same = {*zip(edges.target.tolist(), edges.source.tolist(), strict=True)}
        assert len(same & {*zip(true.target.tolist(), true.source.tolist(), strict=True)}) < 0.5 * len(true)


def test_votes_without_messages(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, label_votes=[0.5])
    found = dict[str, Tensor]()
    for model.inference in ("anchor", "votes", "encoder"):
        found[model.inference] = encode(model, data, [50, 63])
        assert [graph for graph, _ in model.candidates()] == {"anchor": [True], "votes": [False], "encoder": [False]}[
            model.inference
        ]
    for one, other in (("anchor", "votes"), ("votes", "encoder")):
        assert not torch.allclose(found[one], found[other], atol=1e-3), (one, other)


def test_votes_are_the_labels_of_the_bank_and_of_nobody_else(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, label_votes=[1.0], inference="anchor")
    corpus, bank = data.corpus, model.bank.context(model.k, "all")
    assert corpus.labels is not None and bank is not None and model.bank.labels is not None
    held = model.bank.item[: len(model.bank)]
    assert torch.equal(model.bank.labels[: len(held)].long(), torch.from_numpy(corpus.labels[held]).long())
    common = corpus.labels[held].mean(0)
    pictures = model.image.processor()([corpus.images[row] for row in (3, 50)], False)  # type: ignore[index]
    with torch.no_grad():
        nodes, seen, read = model.nodes_of(model.image(pictures), "image")
        first = model.propagate("image", nodes, seen)[0]
        _, voted = model.with_graph("image", nodes, seen, read)
    expected = np.repeat(common[None], 2, axis=0)
    for source, target, weight in zip(first.edges.source, first.edges.target, first.attention, strict=True):
        image = int(bank.nodes.item[source])
        assert target >= 3 or image != 3  # a training item does not see its own labels
        expected[target // 3] += float(weight) * (corpus.labels[image] - common) / 3
    np.testing.assert_allclose(voted.numpy(), expected, atol=1e-5)
    assert ((voted >= 0) & (voted <= 1)).all()
    model.inference = "transductive"
    with torch.no_grad():
        described, voted = model.with_graph("image", nodes, seen, read)
    assert torch.equal(described, voted)


def test_wrong_labels_are_held_as_they_are_trained_with(tmp_path: Path) -> None:
    model, data = matcher(), ToyData(str(tmp_path), labels=True, copies=1)
    data.corrupted_labels = 0.5
    trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(model, data)
    held = model.bank.item[: len(model.bank)].numpy()
    trained = data.corpus.labels_trained_with
    assert trained is not None and data.corpus.labels is not None and model.bank.labels is not None
    assert (model.bank.labels[: len(held)].numpy() == trained[held]).all()
    assert not (trained[held] == data.corpus.labels[held]).all()


def test_encoders_train_as_if_there_were_no_graph(tmp_path: Path) -> None:
    """Clipping, too, is apart: gradients of the graph, however large, shorten no step of the encoders."""
    weights = {}
    ways: dict[str, dict[str, Any]] = {"none": {"layers": 0}, "graph": {"graph_weight": 50.0}}
    for name, options in (ways | {"end to end": ways["graph"] | {"end_to_end": True}}).items():
        torch.manual_seed(0)
        model, data = matcher(**options), ToyData(str(tmp_path), labels=True, copies=1)
        losses = model.plain_losses
        losses.fit(8)
        assert losses.classifier is not None
        for weight in losses.classifier.parameters():
            torch.nn.init.constant_(weight, 0.1)
        L.seed_everything(0, verbose=False)
        trainer(tmp_path, max_epochs=1, limit_val_batches=0, gradient_clip_val=0.1).fit(model, data)
        weights[name] = model.item_nodes["image"].project.weight.detach()
    torch.testing.assert_close(weights["graph"], weights["none"])
    assert not torch.allclose(weights["end to end"], weights["none"])


def test_without_a_bank_an_item_is_its_encoding(tmp_path: Path) -> None:
    model, data = matcher(inference="anchor"), ToyData(str(tmp_path), labels=True)
    trainer(tmp_path).test(model, data, verbose=False)
    model.eval()
    anchored = encode(model, data, [0, 50])
    model.inference = "encoder"
    torch.testing.assert_close(anchored, encode(model, data, [0, 50]))


def test_without_a_graph_there_are_no_weights_of_one_and_no_bank(tmp_path: Path) -> None:
    model, _, _ = with_bank(tmp_path, layers=0)
    assert not any("graph" in name or "bank" in name for name, _ in model.named_parameters())
    assert not hasattr(model, "bank")
    assert model.choices == {"graph_at_test": False, "label_vote": 0.0}


def test_a_trained_model_with_its_bank_passes_the_leak_audit(tmp_path: Path) -> None:
    model, data, fit = with_bank(tmp_path, inference="anchor")
    findings = {finding.name: finding for finding in audit(fit, model, data)}
    assert [name for name, finding in findings.items() if not finding.passed] == []


def test_the_audit_finds_the_transductive_diagnostic(tmp_path: Path) -> None:
    model, data, fit = with_bank(tmp_path, inference="transductive")
    assert {"alone", "subset", "replay"} <= {finding.name for finding in audit(fit, model, data) if not finding.passed}


def finite(loss: Tensor, model: MCRDGN) -> None:
    model.zero_grad()
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)


def some(pairs: dict[str, Any], count: int) -> dict[str, Any]:
    return {
        key: {name: part[:count] for name, part in value.items()} if isinstance(value, dict) else value[:count]
        for key, value in pairs.items()
    }


@pytest.mark.parametrize("update", ["layer", "static"])
def test_extremes_have_finite_gradients(update: str, tmp_path: Path) -> None:
    """More neighbours than items; half precision; a pair alone; no label at all; images that are all the same."""
    model, pairs = prepared(tmp_path, k=50, update=update)
    with torch.autocast("cpu", torch.bfloat16):
        finite(model.training_loss(some(pairs, 2)), model)
    finite(model.training_loss(some(pairs, 1)), model)
    finite(model.training_loss(pairs | {"labels": torch.zeros_like(pairs["labels"])}), model)
    same = {key: value[:1].expand_as(value) for key, value in pairs["image"].items()}
    finite(model.training_loss(pairs | {"image": same}), model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k 0 leaves every node"),
        ({"bank_size": 5}, "bank_size 5 cannot hold"),
        ({"label_votes": []}, "label_votes .* give one or more"),
        ({"label_votes": [-1.0]}, "each from 0 to 1"),
        ({"label_votes": [2.0]}, "each from 0 to 1"),
        ({"votes": LabelVotes()}, "set layers to 0"),
    ],
)
def test_impossible_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        matcher(**options)
    assert "\n" not in str(error.value)
