"""CCA: the closed form against QR and NumPy, and the method around it, whatever batches and devices."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import toy
from numpy.typing import NDArray
from own_features import write_features, write_splits
from toy import ToyData, toy_encoders

from itmbench.data.datasets import FeatureFolder
from itmbench.encoders import FeatureEncoder
from itmbench.errors import InputError
from itmbench.methods.cca import CCA, Moments, canonical_correlations


def trainer(folder: Path, **options: Any) -> L.Trainer:
    return toy.trainer(folder, **({"max_epochs": 1, "limit_val_batches": 0} | options))


def fitted(root: Path, batch_size: int = 8, shuffled_captions: float = 0.0, **options: Any) -> CCA:
    model = CCA(**options)
    data = FeatureFolder(str(root), batch_size=batch_size, eval_batch_size=7, shuffled_captions=shuffled_captions)
    trainer(root).fit(model, data)
    return model


def by_numpy(x: Any, y: Any, regularisation: float) -> tuple[Any, Any, Any]:
    """Directions of x, of y, and correlations, from symmetric inverse square roots of the covariances."""

    def root(matrix: Any) -> Any:
        values, vectors = np.linalg.eigh(matrix + regularisation * np.trace(matrix) / len(matrix) * np.eye(len(matrix)))
        return vectors / np.sqrt(values) @ vectors.T

    a, b = root(np.cov(x, rowvar=False, bias=True)), root(np.cov(y, rowvar=False, bias=True))
    u, correlations, vt = np.linalg.svd(a @ ((x - x.mean(0)).T @ (y - y.mean(0)) / len(x)) @ b, full_matrices=False)
    return a @ u, b @ vt.T, correlations


@pytest.mark.parametrize("tokens", [False, True])
def test_scores_are_those_of_the_training_pairs_solved_by_numpy(tmp_path: Path, tokens: bool) -> None:
    root = write_features(tmp_path / "set", tokens=tokens, captions=2)
    uneven = np.random.default_rng(0).integers(0, 60, 60)  # one text an image, and sixty more
    np.save(root / "text_to_image.npy", np.sort(np.concatenate([np.arange(60), uneven])))
    corpus = FeatureFolder(str(root)).corpus
    images, texts = (np.load(root / f"{what}s.npy").astype(np.float64) for what in ("image", "text"))
    if tokens:
        mask = np.load(root / "text_mask.npy")[:, :, None]
        images, texts = images.mean(1), (texts * mask).sum(1) / mask.sum(1)
    rows = corpus.texts_of(corpus.train)
    x, y = images[corpus.text_to_image[rows]], texts[rows]
    a, b, correlations = by_numpy(x, y, 0.2)
    left = (images - x.mean(0)) @ (a * correlations**0.5)[:, :3]
    right = (texts - y.mean(0)) @ (b * correlations**0.5)[:, :3]
    cosines = (left @ right.T) / np.linalg.norm(left, axis=1)[:, None] / np.linalg.norm(right, axis=1)

    # More training pairs than one batch of 50, which the loader of training batches would make of them.
    assert 50 < len(rows) < 100
    model = fitted(root, batch_size=50, dim=3, regularisation=0.2, power=0.5).eval()
    with torch.no_grad():
        image = model.encode_image(model.image.processor()([corpus.images[row] for row in range(60)], False))  # type: ignore[index]
        text = model.encode_text(model.text.processor()([corpus.texts[row] for row in range(120)], False))
        np.testing.assert_allclose(model.score(image, text), cosines, atol=1e-5)


def test_batches_epochs_and_seeds_change_nothing(tmp_path: Path) -> None:
    root = write_features(tmp_path)
    first = fitted(root).state_dict()
    torch.manual_seed(7)
    again = CCA()
    trainer(tmp_path, max_epochs=3).fit(again, FeatureFolder(str(root), batch_size=30, eval_batch_size=64))
    assert set(first) == {"mean_image", "mean_text", "project_image", "project_text"}
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value.abs(), first[name].abs(), atol=1e-5, rtol=1e-4)


def test_wrong_pairs_are_trained_on_as_any_other_method_does(tmp_path: Path) -> None:
    root = write_features(tmp_path)
    clean, noisy = fitted(root, power=0.0), fitted(root, shuffled_captions=0.5, power=0.0)
    data = FeatureFolder(str(root), shuffled_captions=0.5)
    images, texts = np.load(root / "images.npy").astype(np.float64), np.load(root / "texts.npy").astype(np.float64)
    rows = data.corpus.texts_of(data.corpus.train)
    a, _, _ = by_numpy(images[data.corpus.image_trained_with[rows]], texts[rows], 0.1)
    np.testing.assert_allclose(noisy.project_image.detach().abs(), np.abs(a), atol=1e-4)
    assert not np.allclose(clean.project_image.detach().abs(), np.abs(a), atol=1e-2)


def test_every_option_acts(tmp_path: Path) -> None:
    root = write_features(tmp_path)
    plain = fitted(root)
    assert plain.project_image.shape == (7, 5) and fitted(root, dim=2).project_text.shape == (5, 2)
    options: list[dict[str, Any]] = [{"regularisation": 1.0}, {"power": 0.0}]
    for option in options:
        assert not torch.allclose(fitted(root, **option).project_image.abs(), plain.project_image.abs(), atol=1e-3)
    # Classical: unit variance in every dimension.
    x = np.load(root / "images.npy")[FeatureFolder(str(root)).corpus.train]
    whitened = x @ fitted(root, power=0.0, regularisation=0.0).project_image.detach().numpy()
    np.testing.assert_allclose(whitened.std(0), 1, atol=1e-4)


def test_it_is_solved_before_the_first_validation_and_kept_in_the_checkpoint(tmp_path: Path) -> None:
    root = write_features(tmp_path / "set")
    best = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "best", monitor="val/objective", mode="max")
    fit = trainer(tmp_path, enable_checkpointing=True, callbacks=[best], limit_val_batches=None, gradient_clip_val=1.0)
    model, data = CCA(), FeatureFolder(str(root), batch_size=8)
    fit.fit(model, data)
    after = fit.validate(model, data, verbose=False)[0]["val/mAP"]
    assert best.best_model_score is not None and float(best.best_model_score) == pytest.approx(after, abs=1e-6)
    kept = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    assert set(kept) == {"mean_image", "mean_text", "project_image", "project_text"}

    fresh, untrained = CCA(), CCA()
    metrics = trainer(tmp_path).test(fresh, data, ckpt_path=best.best_model_path, verbose=False, weights_only=True)[0]
    assert torch.equal(fresh.project_image, model.project_image)
    assert metrics["test/mAP"] > trainer(tmp_path).test(untrained, data, verbose=False)[0]["test/mAP"] + 0.2


def test_encoders_of_photographs_and_words_are_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CCA(dim=16, **toy_encoders())  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in model.image.state_dict().items()}
    data = ToyData(str(tmp_path), copies=4)
    fit = trainer(tmp_path)
    fit.fit(model, data)
    assert all(torch.equal(value, before[name]) for name, value in model.image.state_dict().items())
    assert not any(p.requires_grad for e in (model.image, model.text) for p in e.parameters())
    # Random weights, yet linear maps of their vectors match unseen pictures; chance is 1/16.
    assert fit.test(model, data, verbose=False)[0]["test/t2i/R@5"] > 0.45


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    for option in ({"dim": 0}, {"regularisation": -0.1}, {"power": -1.0}):
        with pytest.raises(InputError, match="at least 1 and the others at least 0"):
            CCA(**option)
    root = write_features(tmp_path)
    np.save(root / "images.npy", np.ones((60, 7)))
    with pytest.raises(InputError, match="features of all training images, or of all training texts, are the same"):
        fitted(root)
    with pytest.raises(InputError, match="holds photographs or words"):
        trainer(tmp_path).fit(CCA(), ToyData(str(tmp_path / "toy"), copies=1))


def test_features_of_a_feature_encoder_are_taken_as_they_are(tmp_path: Path) -> None:
    root = write_features(tmp_path)
    write_splits(root, train=list(range(40)), val=[40, 41, 42, 43], query=[50, 51, 54], gallery=[50, 51, 54])
    wide = fitted(root, image=FeatureEncoder(width=3, hidden=[4]), text=FeatureEncoder(width=2))
    assert not list(wide.image.parameters())
    torch.testing.assert_close(wide.project_image.abs(), fitted(root).project_image.abs())


# --- the closed form, against the QR decomposition (Björck and Golub 1973) ------------------------------------------

Array = NDArray[np.float64]


def pairs(items: int = 60, dx: int = 6, dy: int = 4) -> tuple[Array, Array]:
    """Correlated views with means far from 0."""
    generator = np.random.default_rng(1)
    shared = generator.normal(size=(items, 3))
    x = shared @ generator.normal(size=(3, dx)) + generator.normal(size=(items, dx)) + 20
    return x, shared @ generator.normal(size=(3, dy)) + generator.normal(size=(items, dy)) - 7


def moments(x: Array, y: Array) -> Moments:
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    return Moments(torch.tensor([len(a)]), a.sum(0), b.sum(0), a.T @ a, b.T @ b, a.T @ b)


def solve(x: Array, y: Array, regularisation: float = 0.0) -> tuple[Array, Array, Array]:
    a, b, correlations = (each.numpy() for each in canonical_correlations(moments(x, y), regularisation))
    return a, b, correlations


def by_qr(x: Array, y: Array) -> Array:
    """Canonical correlations: cosines of the principal angles between the column spaces."""
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.svd(np.linalg.qr(x)[0].T @ np.linalg.qr(y)[0], compute_uv=False)


def test_correlations_are_those_of_the_qr_decomposition_and_of_the_projections() -> None:
    x, y = pairs()
    a, b, found = solve(x, y)
    np.testing.assert_allclose(found, by_qr(x, y), atol=1e-10)
    assert found[0] > 0.8 > 0.4 > found[-1]
    together = np.corrcoef(x @ a, y @ b, rowvar=False)
    np.testing.assert_allclose(together[:4, 4:], np.diag(found), atol=1e-9)
    np.testing.assert_allclose(together[:4, :4], np.eye(4), atol=1e-9)
    np.testing.assert_allclose(np.var(x @ a, axis=0), 1, atol=1e-9)


@pytest.mark.parametrize("regularisation", [0.0, 0.1])
def test_columns_that_repeat_or_never_vary_give_finite_numbers(regularisation: float) -> None:
    x, y = pairs()
    damaged = np.concatenate([x, x, np.full((60, 2), 5.0)], axis=1)
    a, b, found = solve(damaged, y, regularisation)
    assert np.isfinite(a).all() and np.isfinite(b).all()
    if not regularisation:
        np.testing.assert_allclose(found, by_qr(x, y), atol=1e-7)


def test_more_numbers_than_pairs() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(5, 9)), generator.normal(size=(5, 8))
    np.testing.assert_allclose(solve(x, y)[2], np.ones(4), atol=1e-6)  # four dimensions hold five points, exactly
    assert solve(x, y, 1.0)[2].max() < 0.99


def test_a_side_that_never_varies_correlates_with_nothing() -> None:
    assert solve(np.full((60, 2), 5.0), pairs()[1], 0.1)[2].shape == (0,)
