"""Ranking by expected relevance against the probability of a shared label, pair by pair."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import ToyData, toy_encoders, trainer

from itmbench.encoders import Embeddings
from itmbench.methods.base import Matcher
from itmbench.methods.dscmr import DSCMR
from itmbench.methods.evaluated import Evaluated, Tables
from itmbench.methods.gnn4cmr import GNN4CMR
from itmbench.methods.relevance import relevance_vectors
from itmbench.methods.votes import LabelVotes

METHODS = [DSCMR, GNN4CMR]
TERMS = sum(1 / n for n in range(1, 5))


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


def trained(folder: Path, kind: Any, votes: LabelVotes | None = None, rank_by: str = "relevance") -> Any:
    torch.manual_seed(0)
    model = kind(dim=16, lr=5e-3, rank_by=rank_by, votes=votes, **toy_encoders())
    data = ToyData(str(folder), labels=True, copies=2)
    fit = trainer(folder, max_epochs=8, check_val_every_n_epoch=8)
    fit.fit(model, data)
    fit.save_checkpoint(folder / "model.ckpt")
    return model.eval(), data


def encode(model: Any, data: ToyData) -> tuple[Embeddings, Embeddings]:
    """Eight images that are not of training, and their texts."""
    assert data.corpus.images is not None
    rows = range(50, 58)
    pictures = model.image.processor()([data.corpus.images[row] for row in rows], False)
    words = model.text.processor()([data.corpus.texts[2 * row] for row in rows], False)
    with torch.no_grad():
        return model.encode_image(pictures), model.encode_text(words)


def predicted(model: Any, items: Embeddings) -> Tensor:
    if isinstance(model, DSCMR):
        assert model.classifier is not None
        found = items.pooled @ model.classifier.weight.T + model.classifier.bias
    else:
        found = torch.cosine_similarity(items.pooled.unsqueeze(1), model.classifiers().unsqueeze(0), dim=2)
    return found.detach().clamp(0, 1)


def shared(image: Tensor, text: Tensor) -> Tensor:
    """The first four terms of the series of -log prod_l (1 - p_l q_l), one pair and one label at a time."""

    def of_pair(p: list[float], q: list[float]) -> float:
        return sum((a * b) ** n / n for a, b in zip(p, q, strict=True) for n in range(1, 5))

    rows = [[of_pair(p, q) for q in text.tolist()] for p in image.tolist()]
    return torch.tensor(rows) / (image.shape[1] * TERMS)


@pytest.mark.parametrize("kind", METHODS)
def test_predicted_labels_rank_a_test(tmp_path: Path, kind: Any) -> None:
    model, data = trained(tmp_path, kind)
    image, text = encode(model, data)
    again = kind.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    torch.testing.assert_close(encode(again, data)[0].pooled, image.pooled)
    model.rank_by = "cosine"
    plain = encode(model, data)
    expected = shared(*(predicted(model, items).clamp(max=0.98) for items in plain))
    torch.testing.assert_close(model.score(image, text), expected, atol=1e-5, rtol=0)
    other, _ = trained(tmp_path, kind, rank_by="cosine")  # the same training
    torch.testing.assert_close(encode(other, data)[0].pooled, plain[0].pooled)
    assert (model.score(*plain) - expected).abs().max() > 0.1


@pytest.mark.parametrize("kind", METHODS)
def test_votes_are_mixed_into_the_label_probabilities(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tables] = []
    measure = Evaluated.evaluate

    def spy(self: Matcher, tables: Tables, stage: str) -> Any:
        found = measure(self, tables, stage)
        seen.append(tables)
        found.metrics["mAP"] = 0.9 if len(seen) == 2 else 0.5
        return found

    monkeypatch.setattr(Evaluated, "evaluate", spy)
    model, data = trained(tmp_path, kind, LabelVotes(k=4, weights=[0.0, 0.6, 1.0]))
    assert len(seen) == 3 and model.choices == {"vote": 0.6}
    image, text = encode(model, data)
    plain = {}
    model.rank_by, votes, model.votes = "cosine", model.votes, None
    for modality, items in zip(("image", "text"), encode(model, data), strict=True):
        voted = votes.probabilities(items.pooled, modality)
        assert voted.min() >= -1e-6 and voted.max() <= 1 + 1e-6
        plain[modality] = (0.4 * predicted(model, items) + 0.6 * voted).clamp(0, 0.98)
    torch.testing.assert_close(model.score(image, text), shared(*plain.values()), atol=1e-5, rtol=0)
    # While choosing, images and texts keep to their own filler coordinate.
    assert not seen[1].images.pooled[:, -1].any() and not seen[1].texts.pooled[:, -2].any()
