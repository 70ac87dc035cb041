"""What every method must do, whatever it computes: learn, judge items and pairs alone, and survive extremes."""

import copy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from torch import Tensor
from toy import ToyData, toy_encoders, trainer

from itmbench.encoders import Embeddings, ScratchCLIPImageEncoder, ScratchCLIPTextEncoder
from itmbench.methods import token_matcher
from itmbench.methods.base import Matcher
from itmbench.methods.clip import CLIP
from itmbench.methods.dcmh import DCMH
from itmbench.methods.dscmr import DSCMR
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.gnn4cmr import GNN4CMR
from itmbench.methods.hrem import HREM
from itmbench.methods.losses import InfoNCE, TripletLoss
from itmbench.methods.mcr_dgn import MCRDGN
from itmbench.methods.pooled_max import PooledMax
from itmbench.methods.scan import SCAN
from itmbench.methods.sedra import SEDRA
from itmbench.methods.sgraf import SGRAF
from itmbench.methods.vse import VSE
from itmbench.methods.vse_inf import VSEInfinity
from itmbench.runner.cell_cli import CellCLI
from itmbench.runner.spec import load_cells


def clip_towers() -> dict[str, Any]:
    sizes: dict[str, Any] = {"dim": 32, "width": 32, "depth": 1, "heads": 2}
    image = ScratchCLIPImageEncoder(**sizes, image_size=32, train_crop=1.0)
    return {"image": image, "text": ScratchCLIPTextEncoder(**sizes, vocab_size=100)}


def common() -> dict[str, Any]:
    return {"dim": 32} | toy_encoders()


TOKENS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "vse": (VSE, common, {}),
    "vse-max": (VSE, common, {"pooling": "max"}),
    "vse_inf": (VSEInfinity, common, {}),
    "scan": (SCAN, common, {}),
    "scan-i2t-lse": (SCAN, common, {"direction": "i2t", "aggregation": "lse"}),
    "sgraf-saf": (SGRAF, common, {"similarity_dim": 16}),
    "sgraf-sgr": (SGRAF, common, {"similarity_dim": 16, "module": "sgr"}),
}
CAPTIONS = TOKENS | {
    "dual_encoder": (DualEncoder, common, {}),
    "pooled_max": (PooledMax, common, {}),
    "pooled_max-two": (PooledMax, common, {"heads": 2}),
    "hrem": (HREM, common, {"heads": 2}),
    "clip": (CLIP, clip_towers, {}),
    "sedra": (SEDRA, common, {"intra_k": 4}),
}
LABELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "dscmr": (DSCMR, common, {}),
    "dcmh": (DCMH, common, {}),
    "gnn4cmr": (GNN4CMR, common, {}),
    "mcr_dgn": (MCRDGN, common, {"k": 4}),
}
METHODS = CAPTIONS | LABELS


def method(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    made, parts, defaults = METHODS[name]
    return made(**parts() | {"lr": 3e-3} | defaults | copy.deepcopy(options))  # a loss counts its steps


def after_two_steps(folder: Path, name: str, labels: bool) -> tuple[Matcher, ToyData, L.Trainer]:
    data, model = ToyData(str(folder), labels=labels, copies=2), method(name)
    fit = trainer(folder, max_steps=2, limit_val_batches=0)
    fit.fit(model, data)
    return model, data, fit


@pytest.mark.parametrize(
    ("name", "labels"), [*((name, False) for name in CAPTIONS), *((name, True) for name in METHODS)]
)
def test_trains_and_encodes_items_alone(tmp_path: Path, name: str, labels: bool) -> None:
    """Embeddings and scores are the same in a batch, in reverse order and alone, whatever the padding."""
    model, data, fit = after_two_steps(tmp_path, name, labels)
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    assert 0 < fit.test(model, data, verbose=False)[0]["test/objective"] <= 600
    model.eval()
    corpus, rows = data.corpus, [0, 3, 5, 40]
    assert corpus.images is not None
    texts = ["a red square on a white ground", "blue", "", "pink behind, red in front of a red and a blue square"]
    image, text = model.image.processor(), model.text.processor()

    @torch.no_grad()
    def encode(some: list[int]) -> tuple[Embeddings, Embeddings]:
        pictures = [corpus.images[rows[place]] for place in some]  # type: ignore[index]
        words = [texts[place] for place in some]
        return model.encode_image(image(pictures, False)), model.encode_text(text(words, False))

    together = encode([0, 1, 2, 3])
    for some in ([3, 2, 1, 0], [0], [1], [2], [3]):
        for found, whole in zip(encode(some), together, strict=True):
            torch.testing.assert_close(found.pooled, whole.pooled[some], atol=1e-5, rtol=0)
        with torch.no_grad():
            scores = model.score(*encode(some)), model.score(*together)[some][:, some]
        torch.testing.assert_close(*scores, atol=1e-5, rtol=0)


TRIPLET = {"lr": 5e-3, "loss": TripletLoss(warmup_steps=40)}
LEARNERS: list[tuple[str, bool, int, dict[str, Any], float]] = [
    *((name, False, 5, TRIPLET, 0.4) for name in ("vse", "vse_inf", "scan", "sgraf-saf")),
    ("hrem", False, 8, {"loss": TripletLoss(warmup_steps=30)}, 0.6),
    ("hrem", True, 5, {"loss": TripletLoss(warmup_steps=30)}, 0.6),
    ("clip", False, 8, {}, 0.6),
    ("clip", True, 5, {}, 0.65),
    *((name, False, 5, {}, 0.6) for name in ("pooled_max", "pooled_max-two")),
    ("sedra", False, 8, {}, 0.4),
    ("sedra", True, 5, {}, 0.6),
    *((name, True, 8, {"lr": 5e-3}, 0.7) for name in LABELS),
]


@pytest.mark.parametrize(("name", "labels", "epochs", "options", "bound"), LEARNERS)
def test_learns(tmp_path: Path, name: str, labels: bool, epochs: int, options: dict[str, Any], bound: float) -> None:
    """To match unseen pictures, 16 of one kind each (chance 1/16), or to find shared labels (chance mAP .46)."""
    data, model = ToyData(str(tmp_path), labels=labels), method(name, **options)
    fit = trainer(tmp_path, max_epochs=epochs, check_val_every_n_epoch=epochs)
    fit.fit(model, data)
    metrics = fit.test(model, data, verbose=False)[0]
    assert (metrics["test/mAP"] if labels else min(metrics["test/i2t/R@1"], metrics["test/t2i/R@1"])) > bound


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("vse", {"loss": InfoNCE()}),
    ("vse_inf", {"loss": InfoNCE()}),
    ("scan", {"loss": InfoNCE()}),
    ("sgraf-saf", {"loss": InfoNCE()}),
    ("dual_encoder", {"loss": TripletLoss()}),
    ("pooled_max", {"heads": 2}),
    ("pooled_max", {"dim": 12}),
    ("sedra", {"loss": TripletLoss()}),
    ("sedra", {"inter": "mean"}),
    ("sedra", {"words": False}),
    ("sedra", {"paths": ["global", "fused"]}),
    ("hrem", {"relation_weight": 0.0}),
    ("hrem", {"relation_weight": 0.5}),
    ("hrem", {"agreement_weight": 0.0}),
    ("hrem", {"connections": 0.1}),
    ("hrem", {"residual": 0.1}),
    ("hrem", {"heads": 4}),
    ("hrem", {"dropout": 0.5}),
    ("hrem", {"loss": InfoNCE()}),
    ("hrem", {"loss": TripletLoss()}),
    ("dscmr", {"alpha": 0.5}),
    ("dscmr", {"beta": 0.5}),
    ("dscmr", {"dim": 12}),
    ("dcmh", {"dim": 12}),
    ("gnn4cmr", {"layers": 1}),
    ("gnn4cmr", {"temperature": 0.1}),
    ("gnn4cmr", {"intra_weight": 0.5}),
    ("gnn4cmr", {"label_weight": 0.8}),
    ("gnn4cmr", {"dim": 12}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_every_option_changes_the_loss(
    tmp_path: Path, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # the batch must not depend on the tests before
    for given in ({}, options):
        plain = {"dropout": 0.0} if name == "hrem" else {"token_dropout": 0.0} if name == "vse_inf" else {}
        model, data = method(name, **plain | given), ToyData(str(tmp_path), labels=name in LABELS)
        trainer(tmp_path, max_steps=0).fit(model, data)
        torch.manual_seed(0)
        losses.append(model.train().training_loss(next(iter(data.train_dataloader()))).item())
    assert abs(losses[0] - losses[1]) > 1e-4 * abs(losses[0])


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CELLS = {
    f"{spec}/{cell.method}": cell
    for spec in ("mini", "captions", "labels", "ablations/sedra", "ablations/mcr_dgn")
    for cell in load_cells(BENCHMARKS / f"{spec}.yaml", "seed=0")
}


class Ungraded(L.Callback):
    """Collects the names of weights without a gradient."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.names |= {name for name, p in pl_module.named_parameters() if p.requires_grad and p.grad is None}


@pytest.mark.parametrize("name", CELLS)
def test_every_trained_weight_gets_a_gradient_in_every_step(tmp_path: Path, name: str) -> None:
    """Distributed training waits for all of them."""
    config = {"model": CELLS[name].config["model"]}
    config["data"] = {"class_path": "toy.ToyData", "init_args": {"root": str(tmp_path), "labels": True, "copies": 2}}
    cli, found = CellCLI(yaml.safe_load(yaml.safe_dump(config))), Ungraded()
    fit = trainer(tmp_path, max_epochs=2, limit_train_batches=1, limit_val_batches=0, callbacks=[found])
    fit.fit(cli.make_model(), cli.data)
    assert not found.names


# --- scores of tokens -----------------------------------------------------------------------------------------------


def inputs() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Four random pictures, and four texts of token ids, padded."""
    words = [[2, 9, 8, 7, 3], [2, 3], [2, 11, 3], [2, 9, 9, 8, 12, 14, 20, 3]]
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in words], batch_first=True)
    return {"pixels": pixels}, {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.mark.parametrize("name", [*TOKENS, "sedra"])
def test_training_scores_are_those_of_evaluation_and_follow_autocast(name: str) -> None:
    model = method(name).eval()
    images, texts = inputs()
    scores = model.score(model.encode_image(images), model.encode_text(texts))
    with torch.no_grad():
        torch.testing.assert_close(model.score(model.encode_image(images), model.encode_text(texts)), scores)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.score(model.encode_image(images), model.encode_text(texts))
    assert (rough.float() - scores).abs().max() < 0.05
    rough.float().square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("name", ["scan", "scan-i2t-lse", "sgraf-saf", "sgraf-sgr", "sedra"])
def test_blocks_of_any_size_give_the_same_scores_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles, texts grouped by length, and training blocks that recompute their values."""
    results = []
    for limit in (1 << 26, 40):
        monkeypatch.setattr(token_matcher, "_EVALUATED", {"cpu": limit})
        monkeypatch.setattr(token_matcher, "_TRAINED", limit)
        model = method(name).eval()
        images, texts = inputs()
        image, text = model.encode_image(images), model.encode_text(texts)
        with torch.no_grad():
            evaluated = model.score(image, text)
        trained = model.score(image, text)
        trained.square().sum().backward()
        weight = model.regions.project.weight if name == "sedra" else model.project["image"].weight
        results.append((evaluated, trained.detach(), weight.grad))
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-4, atol=1e-6)


def extremes() -> dict[str, tuple[Embeddings, Embeddings]]:
    """Encoders' outputs at which a division or a root could fail."""
    generator = torch.Generator().manual_seed(0)

    def items(mask: list[list[int]], scale: float = 1.0) -> Embeddings:
        tokens = scale * torch.randn((len(mask), len(mask[0]), 32), generator=generator)
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
    """An encoder that returns its input."""

    width = 32

    def forward(self, items: Embeddings) -> Embeddings:
        return items


@pytest.mark.parametrize("name", ["dual_encoder", "clip", *(name for name in LABELS if name != "mcr_dgn")])
def test_methods_of_pooled_vectors_need_no_tokens(name: str) -> None:
    model = method(name).eval()
    assert not model.reads_tokens
    for modality, items in zip(("image", "text"), extremes()["one region"], strict=True):
        pooled = model.embed(Embeddings(items.pooled), modality).pooled
        assert torch.equal(pooled, model.embed(items, modality).pooled)


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("case", extremes())
def test_extremes_give_numbers_and_gradients(name: str, case: str) -> None:
    model = method(name)
    model.image, model.text = Given(), Given()
    image, text = extremes()[case]
    leaves = []
    for items in (image, text):
        assert items.tokens is not None
        items.tokens = items.tokens.clone().requires_grad_()
        leaves.append(items.tokens)
    with torch.no_grad():  # so that tokens of 0 stay 0
        for layer in (model.project["image"], model.project["text"]):
            layer.bias.zero_()
    for precise in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            scores = model.score(model.encode_image(image), model.encode_text(text))
            loss = scores.float().square().sum() + scores.float().sum()
        assert bool(scores.isfinite().all())
        for gradient in torch.autograd.grad(loss, [*model.parameters(), *leaves], allow_unused=True):
            assert gradient is None or bool(gradient.isfinite().all())
