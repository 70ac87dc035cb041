"""Guided alignment against a loop that forms every pooled vector, and its two paths."""

import math
from typing import Any

import pytest
import torch
from methods.test_base import trainer
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from toy import ToyData, toy_encoders
from toy_tokens import toy_items

from itmbench.encoders import Embeddings
from itmbench.methods.losses import InfoNCE
from itmbench.methods.sedra.guided import GuidedTokens
from itmbench.methods.sedra.module import SEDRA

IMAGES, TEXTS = toy_items([5, 5, 4, 0], dim=32, seed=1), toy_items([6, 1, 3, 6], dim=32, seed=2)


def model(**options: Any) -> SEDRA:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"dim": 16, "alignment": "guided", "loss": InfoNCE(), "lr": 3e-3}
    made = SEDRA(**toy_encoders() | defaults | options)
    with torch.no_grad():
        for layer in made.guides.values() if options.get("alignment") != "global" else ():
            layer.weight[2].weight.normal_()  # type: ignore[index, union-attr]
    return made.eval()


def embedded(made: SEDRA) -> tuple[Embeddings, Embeddings]:
    return made.embed(IMAGES, "image"), made.embed(TEXTS, "text")


def pooled_by(guide: Tensor, layer: GuidedTokens, items: Embeddings, row: int, sharpness: float) -> Tensor:
    """The values of one item, pooled as a query selects them; `[D]`."""
    assert items.tokens is not None and items.mask is not None
    tokens = items.tokens[row][items.mask[row]]
    if not len(tokens):
        return torch.zeros_like(guide)
    values = layer.intra(layer.value(tokens)[None], torch.ones(1, len(tokens), dtype=torch.bool))[0]
    weights = (sharpness * (normalize(values, dim=1) @ guide) + layer.weight(tokens).squeeze(1)).softmax(0)
    return weights @ values


@torch.no_grad()
def test_score_is_that_of_the_slow_loop() -> None:
    made = model()
    made.loss.log_scale.fill_(2.0)  # type: ignore[operator]
    made.guided_loss.log_scale.fill_(3.0)  # type: ignore[operator]
    sharpness, (of_images, of_texts) = float(made.log_sharpness.exp()), (made.guides[key] for key in ("image", "text"))
    queries = [normalize(layer.query(x.pooled), dim=1) for layer, x in ((of_images, IMAGES), (of_texts, TEXTS))]  # type: ignore[operator]
    images, texts = embedded(made)
    expected = torch.zeros(4, 4)
    for i in range(4):
        for j in range(4):
            image = pooled_by(queries[1][j], of_images, IMAGES, i, sharpness)  # type: ignore[arg-type]
            text = pooled_by(queries[0][i], of_texts, TEXTS, j, sharpness)  # type: ignore[arg-type]
            guided = (
                cosine_similarity(image, queries[1][j], dim=0) + cosine_similarity(text, queries[0][i], dim=0)
            ) / 2
            share = math.exp(2.0) / (math.exp(2.0) + math.exp(3.0))
            expected[i, j] = share * (images.pooled[i, :16] @ texts.pooled[j, :16]) + (1 - share) * guided
    torch.testing.assert_close(made.score(images, texts), expected, atol=1e-5, rtol=0)


def test_each_path_learns_from_its_own_loss(tmp_path: Any) -> None:
    """Gradients of one path do not reach the layers of the other, and all others of the method are at rest."""
    made = model()
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(made, ToyData(str(tmp_path)))
    made.image.requires_grad_(False)
    image, text = embedded(made.train())
    for scores, touched in (
        (made._global(image, text), "tokens."),
        (made._guided(image, text, made.within(image), made.within(text)), ("guides.", "log_sharpness")),
    ):
        made.zero_grad()
        scores.square().sum().backward(retain_graph=True)
        learning = [name for name, p in made.named_parameters() if p.grad is not None and p.grad.any()]
        assert learning and all(name.startswith(touched) for name in learning)


@torch.no_grad()
def test_switches_change_the_score() -> None:
    plain = model().score(*embedded(model()))
    for options in ({"intra": "off"}, {"intra_k": 1}, {"alignment": "global"}):
        made = model(**options)
        assert not torch.allclose(made.score(*embedded(made)), plain, atol=1e-3)


def test_extremes_have_finite_gradients() -> None:
    made = model().train()
    assert IMAGES.tokens is not None
    for scale in (0.0, 1.0, 1e4):
        images = Embeddings(scale * IMAGES.pooled, scale * IMAGES.tokens, IMAGES.mask)
        scores = made.score(made.embed(images, "image"), made.embed(TEXTS, "text"))
        made.zero_grad()
        scores.sum().backward()
        assert bool(scores.isfinite().all())
        assert all(bool(p.grad.isfinite().all()) for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize("labels", [False, True])
def test_learns(tmp_path: Any, labels: bool) -> None:
    made, data = model(), ToyData(str(tmp_path), labels=labels)
    fit = trainer(tmp_path, max_epochs=6, check_val_every_n_epoch=6)
    fit.fit(made, data)
    metrics = fit.validate(made, data, verbose=False)[0]
    assert (metrics["val/mAP"] if labels else metrics["val/t2i/R@1"]) > 0.5
