"""What every caption-matching baseline must do: learn, take labels, judge a pair alone, and stand extremes."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from toy import ToyData, toy_encoders

from itmbench.encoders import Embeddings
from itmbench.methods.base import Matcher
from itmbench.methods.losses import InfoNCE, TripletLoss
from itmbench.methods.scan import SCAN
from itmbench.methods.sgraf import SGRAF
from itmbench.methods.vse import VSE
from itmbench.methods.vse_inf import VSEInfinity

METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "vse": (VSE, {}),
    "vse-max": (VSE, {"pooling": "max"}),
    "vse_inf": (VSEInfinity, {}),
    "scan": (SCAN, {}),
    "scan-i2t-lse": (SCAN, {"direction": "i2t", "aggregation": "lse"}),
    "sgraf-saf": (SGRAF, {"similarity_dim": 16}),
    "sgraf-sgr": (SGRAF, {"similarity_dim": 16, "module": "sgr"}),
}
one_of_each_method = pytest.mark.parametrize("name", ["vse", "vse_inf", "scan", "sgraf-saf"])
every_method = pytest.mark.parametrize("name", METHODS)


def method(name: str, **options: Any) -> Matcher:
    torch.manual_seed(0)
    made, defaults = METHODS[name]
    return made(**{"dim": 32} | toy_encoders() | defaults | options)


def trainer(folder: Path, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return L.Trainer(default_root_dir=folder, accelerator="cpu", **(quiet | {"enable_checkpointing": False} | options))


@one_of_each_method
def test_learns_to_match_unseen_pictures(tmp_path: Path, name: str) -> None:
    data, model = ToyData(str(tmp_path)), method(name, lr=5e-3, loss=TripletLoss(warmup_steps=40))
    fit = trainer(tmp_path, max_epochs=5, limit_val_batches=0)
    fit.fit(model, data)
    metrics = fit.test(model, data, verbose=False)[0]
    # 16 pictures, each with its own kind: chance is 1/16.
    assert metrics["test/i2t/R@1"] > 0.4
    assert metrics["test/t2i/R@1"] > 0.4


@one_of_each_method
def test_trains_and_is_evaluated_on_labels(tmp_path: Path, name: str) -> None:
    data, model = ToyData(str(tmp_path), labels=True, copies=2), method(name)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    fit = trainer(tmp_path, max_steps=3, limit_val_batches=0)
    fit.fit(model, data)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    unmoved = sum(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert unmoved < len(before) / 4
    assert 0 < fit.test(model, data, verbose=False)[0]["test/mAP"] <= 1


def inputs(words: list[list[int]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random pictures, one for each text, and texts of token ids, padded."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (len(words), 3, 32, 32), dtype=torch.uint8, generator=generator)
    longest = max(len(text) for text in words)
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in words])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in words])
    return {"pixels": pixels}, {"input_ids": ids, "attention_mask": mask}


WORDS = [[2, 9, 8, 7, 3], [2, 3], [2, 11, 3], [2, 9, 9, 8, 12, 14, 20, 3]]


@every_method
def test_a_pair_alone_and_in_a_batch_scores_the_same(name: str) -> None:
    model = method(name).eval()
    images, texts = inputs(WORDS)
    with torch.no_grad():
        scores = model.score(model.encode_image(images), model.encode_text(texts))
        for row, words in enumerate(WORDS):
            image = model.encode_image({"pixels": images["pixels"][row : row + 1]})
            text = model.encode_text(inputs([words])[1])
            torch.testing.assert_close(model.score(image, text)[0, 0], scores[row, row], rtol=0, atol=1e-5)


@every_method
def test_training_scores_are_those_of_evaluation_and_follow_autocast(name: str) -> None:
    model = method(name).eval()
    images, texts = inputs(WORDS)
    scores = model.score(model.encode_image(images), model.encode_text(texts))
    with torch.no_grad():
        torch.testing.assert_close(model.score(model.encode_image(images), model.encode_text(texts)), scores)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.score(model.encode_image(images), model.encode_text(texts))
    assert (rough.float() - scores).abs().max() < 0.05
    rough.float().square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def extremes() -> dict[str, tuple[Embeddings, Embeddings]]:
    """Encoders' outputs that a division or a root could stumble over."""
    generator = torch.Generator().manual_seed(0)

    def items(mask: list[list[int]], scale: float = 1.0) -> Embeddings:
        shape = (len(mask), len(mask[0]), 32)
        tokens = scale * torch.randn(shape, generator=generator)
        return Embeddings(tokens.mean(1), tokens, torch.tensor(mask).bool())

    usual = items([[1, 1, 1], [1, 1, 1]])
    assert usual.tokens is not None
    same = Embeddings(usual.pooled[:1], usual.tokens[:1, :1].expand(1, 3, 32), torch.ones(1, 3, dtype=torch.bool))
    return {
        "text without a word": (usual, items([[1, 1], [0, 0]])),
        "nothing on either side": (items([[0, 0], [1, 1]]), items([[0, 0], [1, 1]])),
        "one region": (items([[1], [1]]), items([[1, 1], [1, 0]])),
        "one token on either side": (items([[1], [1]]), items([[1], [1]])),
        "all tokens 0": (items([[1, 1]], scale=0), items([[1, 1]], scale=0)),
        "all tokens the same": (same, same),
        "large": (items([[1, 1]], scale=1e4), items([[1, 1]], scale=1e4)),
    }


class Given(torch.nn.Module):
    """An encoder that returns what it was given."""

    width = 32

    def forward(self, items: Embeddings) -> Embeddings:
        return items


@every_method
@pytest.mark.parametrize("case", extremes())
def test_extremes_give_numbers_and_gradients(name: str, case: str) -> None:
    model = method(name)
    model.image, model.text = Given(), Given()  # type: ignore[assignment]
    image, text = extremes()[case]
    leaves = []
    for items in (image, text):
        assert items.tokens is not None
        items.tokens = items.tokens.clone().requires_grad_()
        leaves.append(items.tokens)
    with torch.no_grad():  # so that tokens of 0 stay 0
        for layer in (model.project_image, model.project_text):
            layer.bias.zero_()  # type: ignore[operator, union-attr]
    for precise in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            scores = model.score(model.encode_image(image), model.encode_text(text))  # type: ignore[arg-type]
            loss = scores.float().square().sum() + scores.float().sum()
        assert bool(scores.isfinite().all())
        for gradient in torch.autograd.grad(loss, [*model.parameters(), *leaves], allow_unused=True):
            assert gradient is None or bool(gradient.isfinite().all())


@one_of_each_method
def test_the_loss_is_an_option(name: str) -> None:
    assert isinstance(method(name, loss=None).loss, TripletLoss)
    assert isinstance(method(name, loss=InfoNCE()).loss, InfoNCE)
