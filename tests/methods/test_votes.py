"""Label votes against a loop over cosines, and as an option of methods."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from toy import ToyData, toy_encoders, trainer

from itmbench.errors import InputError
from itmbench.methods import neighbours
from itmbench.methods.base import Matcher
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.evaluated import Evaluated, Tables
from itmbench.methods.scan import SCAN
from itmbench.methods.votes import FAINT, LabelVotes, joined
from itmbench.runner.audit import audit


def filled(k: int = 4) -> tuple[LabelVotes, Tensor, Tensor]:
    torch.manual_seed(0)
    votes, images, texts = LabelVotes(k), torch.randn(12, 6), torch.randn(15, 6)
    votes.fill(images, texts, torch.eye(12)[:, :5], (torch.rand(15, 5) > 0.5).float())
    return votes, images, texts


def test_votes_are_the_labels_of_the_nearest_of_the_own_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "HANDICAP", 0.0)
    votes, images, texts = filled()
    items = 3 * torch.randn(5, 6)
    for modality, given, labels in (("image", images, votes.image_labels), ("text", texts, votes.text_labels)):
        mean = normalize(given, dim=1).mean(0)
        kept = normalize(normalize(given, dim=1) - mean, dim=1)
        for row, vector in enumerate(normalize(normalize(items, dim=1) - mean, dim=1)):
            cosines = [float(vector @ other) for other in kept]
            ranked = sorted(range(len(kept)), key=lambda other: -cosines[other])
            low, high = cosines[ranked[4]], cosines[ranked[1]]  # with k = 4
            total = sum(math.exp(cosines[other] / 0.1) for other in ranked[:4])
            expected = torch.zeros(5)
            for other in ranked[:4]:
                member = min(1.0, (cosines[other] - low) / (high - low))
                expected += member * math.exp(cosines[other] / 0.1) / total * (labels[other] - labels.mean(0))
            expected /= max(float(expected.norm()), FAINT)
            torch.testing.assert_close(votes(items, modality)[row], expected, atol=1e-4, rtol=0)


def test_an_item_of_the_training_part_does_not_vote_for_itself() -> None:
    votes, images, _ = filled(k=12)
    votes.image_labels = torch.cat([torch.ones(1, 5), torch.zeros(11, 5)])
    assert (votes(images[:1], "image") < 0).all()  # fewer labels than the mean
    assert (votes(images[1:2], "image") != 0).any()


def test_before_the_first_filling_nobody_votes() -> None:
    assert LabelVotes()(torch.randn(3, 6), "text").shape == (3, 0)


@pytest.mark.parametrize("options", [{"k": 0}, {"weights": []}, {"weights": [-1.0]}, {"weights": [float("nan")]}])
def test_impossible_options(options: Any) -> None:
    with pytest.raises(InputError, match="LabelVotes"):
        LabelVotes(**options)


def dual(votes: LabelVotes | None) -> DualEncoder:
    torch.manual_seed(0)
    encoders: dict[str, Any] = dict(toy_encoders())
    return DualEncoder(dim=16, lr=3e-3, votes=votes, **encoders)


def trained(folder: Path, labels: bool = True, **options: Any) -> tuple[Matcher, ToyData, Any]:
    model = dual(LabelVotes(**({"k": 4} | options)))
    data = ToyData(str(folder), labels=labels, copies=2)
    fit = trainer(folder, max_epochs=20, check_val_every_n_epoch=20)
    fit.fit(model, data)
    return model, data, fit


def encode(model: Matcher, data: ToyData, rows: list[int]) -> Tensor:
    assert data.corpus.images is not None
    with torch.no_grad():
        return model.encode_image(model.image.processor()([data.corpus.images[row] for row in rows], False)).pooled


def test_validation_chooses_the_weight_and_a_test_encodes_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, measure, best = [], Evaluated.evaluate, 2

    def spy(self: Matcher, tables: Tables, stage: str) -> Any:
        found = measure(self, tables, stage)
        measured.append((stage, tables.images.pooled))
        found.metrics["mAP"] = 0.9 if len(measured) - 1 == best else 0.5
        return found

    monkeypatch.setattr(Evaluated, "evaluate", spy)
    model, data, fit = trained(tmp_path, weights=[0, 0.5, 2])
    assert [stage for stage, _ in measured] == ["val"] * 3 and model.choices == {"vote": 2.0}
    model.eval()
    found = encode(model, data, [0, 50])
    torch.testing.assert_close(measured[best][1][0], found[0], atol=1e-5, rtol=0)  # the gallery's first is of training
    assert model.votes is not None and data.corpus.labels is not None
    plain = model.embed(model.image(model.image.processor()([data.corpus.images[50]], False)), "image").pooled  # type: ignore[index]
    torch.testing.assert_close(found[1:], joined(normalize(plain, dim=1), model.votes(plain, "image"), 2.0))
    fit.test(model, data, verbose=False)
    assert len(measured) == 4
    # All training items vote, with the labels that they are trained with.
    train = data.corpus.train
    assert len(model.votes.image) == len(train) and len(model.votes.text) == len(data.corpus.texts_of(train))
    assert (model.votes.image_labels.numpy() == data.corpus.labels[train]).all()
    fit.save_checkpoint(tmp_path / "model.ckpt")
    again = DualEncoder.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    torch.testing.assert_close(encode(again, data, [0, 50]), found)


def test_votes_leave_training_alone_and_pass_the_audit(tmp_path: Path) -> None:
    model, data, fit = trained(tmp_path, weights=[0.7])
    plain = dual(None)
    trainer(tmp_path, max_epochs=20, limit_val_batches=0).fit(plain, data)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    assert [finding for finding in audit(fit, model, data) if not finding.passed] == []


def test_votes_need_labels_and_a_cosine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no labels"):
        trained(tmp_path, labels=False)
    with pytest.raises(InputError, match="SCAN: scores pairs itself"):
        SCAN(votes=LabelVotes())
