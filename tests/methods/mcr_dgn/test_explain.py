"""Explanations: who is looked at and how much, and what removing the strongest edges does."""

from pathlib import Path

import pytest
import torch
from methods.mcr_dgn.test_module import matcher, with_bank
from toy import ToyData

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.mcr_dgn.context import Edges
from itmbench.methods.mcr_dgn.explain import (
    MODALITIES,
    attached_bank,
    deletion,
    explain,
    without_random,
    without_strongest,
)
from itmbench.methods.mcr_dgn.module import MCRDGN


def inputs(model: MCRDGN, data: ToyData, rows: range) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    corpus = data.corpus
    assert corpus.images is not None
    images = model.image.processor()([corpus.images[row] for row in rows], False)
    return images, model.text.processor()([corpus.texts[2 * row] for row in rows], False)


def some_edges() -> tuple[Edges, torch.Tensor]:
    target = torch.tensor([0, 0, 0, 0, 2, 2, 3])
    nothing = torch.zeros(7)
    attention = torch.tensor([0.1, 0.4, 0.3, 0.2, 0.9, 0.1, 1.0])
    return Edges(torch.arange(7), target, nothing, nothing, nothing, nothing.long()), attention


def test_the_strongest_share_of_each_target_is_left_out() -> None:
    edges, attention = some_edges()
    left = {share: without_strongest(share)(edges, attention).tolist() for share in (0.0, 0.25, 0.5, 0.51, 1.0)}
    assert left[0.0] == [True] * 7
    assert left[0.25] == [True, False, True, True, False, True, False]
    assert left[0.5] == [True, False, False, True, False, True, False]
    assert left[0.51] == [True, False, False, False, False, False, False]
    assert left[1.0] == [False] * 7


def test_as_many_are_left_out_at_random() -> None:
    edges, attention = some_edges()
    generator = torch.Generator().manual_seed(0)
    drawn = [without_random(0.5, generator)(edges, attention) for _ in range(20)]
    for kept in drawn:
        assert edges.target[~kept].tolist() == [0, 0, 2, 3]
    assert len({tuple(kept.tolist()) for kept in drawn}) > 5


def test_an_explanation_is_the_attention_of_the_layers(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path)
    for modality, batch in zip(MODALITIES, inputs(model, data, range(48, 52)), strict=True):
        found = explain(model, modality, batch)
        with torch.no_grad():
            done = model.propagate(modality, *model.item_nodes[modality](getattr(model, modality)(batch)))
        bank = model.bank.context(model.k, "all")
        assert bank is not None
        for item, seen in enumerate(found):
            expected: dict[tuple[int, str], float] = {}
            for step in done:
                edges = step.edges
                for e in range(len(edges)):
                    if int(edges.target[e]) // 3 == item:
                        source = int(edges.source[e])
                        key = int(bank.nodes.item[source]), "image" if source < bank.nodes.images else "text"
                        expected[key] = expected.get(key, 0) + float(step.attention[e]) / 6
            assert {(each.image, each.modality): each.weight for each in seen} == pytest.approx(expected, abs=1e-6)
            assert [each.weight for each in seen] == sorted((each.weight for each in seen), reverse=True)
            assert {each.image for each in seen} <= set(data.corpus.train.tolist())
        assert any(found)


def test_nothing_to_explain_is_one_line(tmp_path: Path) -> None:
    data, model = ToyData(str(tmp_path), copies=1), matcher().eval()
    model.text.fit(data.corpus.texts, data.corpus.texts_of(data.corpus.train))
    images, _ = inputs(model, data, range(2))
    with pytest.raises(InputError, match="no graph or is untrained"):
        explain(model, "image", images)
    with pytest.raises(InputError, match="no graph or is untrained"):
        attached_bank(matcher(layers=0))


def test_items_that_look_at_each_other_have_no_bank_to_explain(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path)
    model.inference = "transductive"
    images, texts = inputs(model, data, range(48, 50))
    with pytest.raises(InputError, match=r"inference is transductive.*; set --model\.inference anchor$"):
        explain(model, "image", images)
    with pytest.raises(InputError, match="inference is transductive"):
        deletion(model, [images], [texts], lambda image, text: 0.0)


def test_removing_what_is_looked_at_most_changes_more_than_removing_anything(tmp_path: Path) -> None:
    model, data, _ = with_bank(tmp_path, k=8)
    images, texts = inputs(model, data, range(48, 64))
    model.inference = "anchor"
    with torch.no_grad():
        whole = model.encode_image(images).pooled @ model.encode_text(texts).pooled.T
        sides = [
            model.embed_nodes(modality, *model.nodes_of(encoder(side), modality), without_strongest(1.0))
            for modality, encoder, side in zip(MODALITIES, (model.image, model.text), (images, texts), strict=True)
        ]
        plain = sides[0] @ sides[1].T

    def likeness(image: Embeddings, text: Embeddings) -> float:
        return -float((image.pooled @ text.pooled.T - whole).abs().mean())

    found = deletion(model, [images], [texts], likeness, draws=2)
    assert found.gap > 0 and found.gap == pytest.approx(
        sum(sum(draw) - sum(found.strongest) for draw in found.random) / 6
    )
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
