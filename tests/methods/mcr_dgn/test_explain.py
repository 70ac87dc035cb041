"""Explanations: who is looked at and how much, and what removing the strongest edges does."""

from pathlib import Path

import pytest
import torch
from methods.mcr_dgn.test_module import matcher, with_bank
from toy import ToyData

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.explained import MODALITIES, corpus_items
from itmbench.methods.mcr_dgn.bank import bank_rows
from itmbench.methods.mcr_dgn.deletion import deletion, without_random, without_strongest
from itmbench.methods.mcr_dgn.module import MCRDGN


def inputs(model: MCRDGN, data: ToyData, rows: range) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    corpus = data.corpus
    assert corpus.images is not None
    images = model.image.processor()([corpus.images[row] for row in rows], False)
    return images, model.text.processor()([corpus.texts[2 * row] for row in rows], False)


ATTENTION = torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.9, 0.0, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]])


def test_the_strongest_share_of_each_node_is_left_out() -> None:
    left = {share: without_strongest(share)(ATTENTION).tolist() for share in (0.0, 0.25, 0.5, 0.51, 1.0)}
    assert left[0.0] == [[True] * 4] * 3
    assert left[0.25][:2] == [[True, False, True, True], [False, True, True, True]]
    assert left[0.5][:2] == [[True, False, False, True], [False, True, True, True]]
    assert left[0.51][:2] == [[True, False, False, False], [False, True, False, True]]
    assert left[1.0][:2] == [[False] * 4, [False, True, False, True]]


def test_as_many_are_left_out_at_random() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [without_random(0.5, generator)(ATTENTION) for _ in range(20)]
    for kept in drawn:
        assert (~kept).sum(1).tolist() == [2, 1, 0] and not (~kept & (ATTENTION == 0)).any()
    assert len({str(kept.tolist()) for kept in drawn}) > 5


def test_an_explanation_is_what_the_labels_receive(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path)
    names, labels = [*data.corpus.label_names], model.bank.labels
    pairs, mean = bank_rows(data.corpus, model.bank_size), labels.mean(0)
    for modality, rows in zip(MODALITIES, ([48, 49, 50, 51], [96, 98, 100, 102]), strict=True):
        items = corpus_items(model, data.corpus, modality, rows)
        ids = [getattr(data.corpus, f"{modality}_ids")[row] for row in pairs[modality == "text"]]
        with torch.no_grad():
            embedded = model.embed(getattr(model, modality)(items.inputs), modality)
            received = model.received(embedded, modality)
        for row, item in enumerate(model.explain_items(data.corpus, items, top=len(ids))):
            assert [each.weight for each in item.sees] == sorted((each.weight for each in item.sees), reverse=True)
            for each in item.labels:
                label = names.index(each.label)
                assert each.received == pytest.approx(float(received[row, label]), abs=1e-6)
                # The graph says the mean of what the item's node and the label's node receive.
                for node in (item.sees, each.sees):
                    assert node and sum(seen.weight for seen in node) <= 1 + 1e-5
                parts = [
                    mean[label] + sum(seen.weight * (labels[ids.index(seen.id)] - mean)[label] for seen in node)
                    for node in (item.sees, each.sees)
                ]
                assert float(sum(parts) / 2) == pytest.approx(each.received, abs=1e-5)
                assert each.predicted == pytest.approx(float(embedded.pooled[row, 32 + label].sigmoid()), abs=1e-6)
                assert (sum(each.regions) == pytest.approx(1, abs=1e-5)) == (modality == "image")
                assert 0 < sum(part.weight for part in each.parts) <= 1 + 1e-5
                assert {type(part.part) for part in each.parts} == {int if modality == "image" else str}
            final = [each.predicted + 0.5 * (each.received - each.predicted) for each in item.labels]
            assert final == sorted(final, reverse=True) and len(final) == 3


@pytest.mark.parametrize("nodes", ["items", "labels"])
def test_only_the_kinds_that_attach_have_neighbours(nodes: str, tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, nodes=nodes)
    for modality in MODALITIES:
        for item in model.explain_items(data.corpus, corpus_items(model, data.corpus, modality, [48, 49]), top=2):
            assert bool(item.sees) == (nodes == "items")
            assert all(bool(each.sees) == (nodes == "labels") for each in item.labels)


def test_nothing_to_explain_is_one_line(tmp_path: Path) -> None:
    none, data, _ = with_bank(tmp_path, nodes="none")
    images, texts = inputs(none, data, range(2))
    for model in (matcher().eval(), none):
        with pytest.raises(InputError, match="no graph or is untrained"):
            model.explain_items(data.corpus, corpus_items(none, data.corpus, "image", [0]), top=1)
        with pytest.raises(InputError, match="no graph or is untrained"):
            deletion(model, [images], [texts], lambda image, text: 0.0)


def test_removing_what_is_looked_at_most_changes_more_than_removing_anything(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, k=8)
    images, texts = inputs(model, data, range(48, 64))
    with torch.no_grad():
        whole = model.encode_image(images).pooled @ model.encode_text(texts).pooled.T
        sides = [
            model.ranked(model.embed(encoder(side), modality), modality, without_strongest(1.0)).pooled
            for modality, encoder, side in zip(MODALITIES, (model.image, model.text), (images, texts), strict=True)
        ]
        plain = sides[0] @ sides[1].T

    def likeness(image: Embeddings, text: Embeddings) -> float:
        return -float((image.pooled @ text.pooled.T - whole).abs().mean())

    found = deletion(model, [images], [texts], likeness, draws=2)
    assert found.strongest[0] < sum(draw[0] for draw in found.random) / 2
    assert found.gap == pytest.approx(sum(sum(draw) - sum(found.strongest) for draw in found.random) / 6)
    assert found.spread == pytest.approx(abs(sum(found.random[0]) - sum(found.random[1])) / 6) and found.spread > 0
    assert found.whole == pytest.approx(0, abs=1e-6)
    assert found.none == pytest.approx(-float((plain - whole).abs().mean()))
    assert 0 > found.strongest[0] > found.strongest[2]
    halves = [
        [{key: value[part] for key, value in side.items()} for part in (slice(0, 8), slice(8, 16))]
        for side in (images, texts)
    ]
    in_halves = [deletion(model, iter(halves[0]), iter(halves[1]), likeness, shares=(0.5,), seed=s) for s in (0, 0, 1)]
    assert in_halves[0] == in_halves[1] != in_halves[2]
    assert in_halves[0].strongest == pytest.approx([found.strongest[1]])
    with pytest.raises(InputError, match="draws is 0"):
        deletion(model, [images], [texts], likeness, draws=0)
