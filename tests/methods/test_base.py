"""What all methods share: optimiser, schedule, evaluation tables, one embedding whatever the batch."""

from pathlib import Path
from typing import Any, cast

import lightning as L
import pytest
import torch
from toy import ToyData, toy_encoders, trainer

from itmbench.encoders import Embeddings, TimmImageEncoder
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.methods.base import SCALAR_RATE, Batch
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.losses import InfoNCE, TripletLoss


def matcher(**options: object) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(dim=32, lr=3e-3, **toy_encoders(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [InfoNCE(), TripletLoss(warmup_steps=40)])
def test_learns_to_match_unseen_pictures(tmp_path: Path, loss: InfoNCE | TripletLoss) -> None:
    data, model = ToyData(str(tmp_path)), matcher(loss=loss)
    fit = trainer(tmp_path, max_epochs=20)
    fit.fit(model, data)
    metrics = fit.test(model, data, verbose=False)[0]
    # 16 pictures, each with its own kind: chance is 1/16.
    assert metrics["test/i2t/R@1"] > 0.7
    assert metrics["test/t2i/R@1"] > 0.7
    assert metrics["test/objective"] == metrics["test/rSum"]


def test_learns_labels(tmp_path: Path) -> None:
    data, model = ToyData(str(tmp_path), labels=True), matcher()
    fit = trainer(tmp_path, max_epochs=12)
    before = fit.test(model, data, verbose=False)[0]["test/mAP"]
    fit.fit(model, data)
    after = fit.test(model, data, verbose=False)[0]
    assert after["test/mAP"] > before + 0.2
    assert after["test/objective"] == after["test/mAP"]


def test_learning_rates_by_encoder_and_no_decay_of_vectors(tmp_path: Path) -> None:
    tiny = {"patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}
    encoders = toy_encoders() | {"image": TimmImageEncoder(image_size=32, model_args=tiny, lr_multiplier=0.1)}
    model = DualEncoder(dim=32, lr=1e-2, weight_decay=0.3, warmup=0.5, **encoders)  # type: ignore[arg-type]
    rates: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *args: object) -> None:
            rates.append(max(group["lr"] for group in trainer.optimizers[0].param_groups) / SCALAR_RATE)

    fit = trainer(tmp_path, max_steps=10, limit_val_batches=0, callbacks=[Watch()])
    fit.fit(model, ToyData(str(tmp_path)))
    of_weight = {id(p): g for g in fit.optimizers[0].param_groups for p in g["params"]}
    patch, word = cast(Any, model).image.model.patch_embed.proj, cast(Any, model).text.model.embeddings.word_embeddings
    assert of_weight[id(word.weight)]["initial_lr"] == pytest.approx(1e-2)
    assert of_weight[id(patch.weight)]["initial_lr"] == pytest.approx(1e-3)
    assert of_weight[id(cast(Any, model).loss.log_scale)]["initial_lr"] == pytest.approx(1e-1)
    assert of_weight[id(patch.weight)]["weight_decay"] == 0.3
    assert of_weight[id(patch.bias)]["weight_decay"] == 0
    assert {id(p) for p in model.parameters() if p.requires_grad} == set(of_weight)
    assert rates[:5] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    assert rates[5:] == sorted(rates[5:], reverse=True) and rates[-1] < 0.002


@pytest.mark.parametrize("freeze", [True, False])
def test_feature_dropout_goes_on_after_a_validation(tmp_path: Path, freeze: bool) -> None:
    encoders = toy_encoders()
    options = encoders["image"].options["init_args"] | {"feature_dropout": 0.5, "freeze": freeze}
    model = DualEncoder(dim=32, text=encoders["text"], image=TimmImageEncoder(**options))
    dropped: list[tuple[bool, float]] = []

    def watch(encoder: Any, inputs: Any, found: Embeddings) -> None:
        dropped.append((bool(model.trainer.training), float((found.pooled == 0).float().mean())))

    model.image.register_forward_hook(watch)
    fit = trainer(tmp_path, max_epochs=2, check_val_every_n_epoch=1, limit_train_batches=2)
    fit.fit(model, ToyData(str(tmp_path)))
    training = [share for is_training, share in dropped if is_training]
    assert len(training) == 4 and all(0.4 < share < 0.6 for share in training)
    assert all(share < 0.1 for is_training, share in dropped if not is_training)


def test_endless_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set trainer\.max_epochs"):
        trainer(tmp_path, max_epochs=-1).fit(matcher(), ToyData(str(tmp_path)))


def test_part_of_the_gallery_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"leave trainer\.limit_test_batches unset"):
        trainer(tmp_path, limit_test_batches=1).test(matcher(), ToyData(str(tmp_path)), verbose=False)


def test_fast_dev_run_goes_through(tmp_path: Path) -> None:
    trainer(tmp_path, fast_dev_run=True).fit(matcher(), ToyData(str(tmp_path)))


def test_metrics_follow_the_corpus_not_the_order_of_batches(tmp_path: Path) -> None:
    """An embedding that knows its own row gives a perfect score only if tables are put in order."""

    class Oracle(DualEncoder):
        def predict_step(
            self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
        ) -> tuple[torch.Tensor, Embeddings]:
            index = batch["index"]
            rows = index if "image" in batch else torch.from_numpy(self.data.corpus.text_to_image)[index]
            return index, Embeddings(torch.nn.functional.one_hot(rows, len(self.data.corpus.image_ids)).float())

    model = Oracle(dim=32, **toy_encoders())  # type: ignore[arg-type]
    metrics = trainer(tmp_path).test(model, ToyData(str(tmp_path)), verbose=False)[0]
    assert metrics["test/rSum"] == pytest.approx(600)


class Given(DualEncoder):
    """Embeddings that do not come from the item: the same, or random, or not a number."""

    what = "same"

    def encode_image(self, images: Inputs) -> Embeddings:
        return self.vectors(len(images["pixels"]))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return self.vectors(len(tokens["input_ids"]))

    def vectors(self, count: int) -> Embeddings:
        if self.what == "random":
            return Embeddings(torch.randn(count, 32))
        return Embeddings(torch.full((count, 32), torch.nan if self.what == "nan" else 0.3))


def given(folder: Path, what: str, **options: object) -> dict[str, float]:
    torch.manual_seed(0)
    model = Given(dim=32, **toy_encoders())  # type: ignore[arg-type]
    model.what = what
    return dict(trainer(folder).test(model, ToyData(str(folder), **options), verbose=False)[0])  # type: ignore[arg-type]


def test_a_collapsed_model_retrieves_nothing(tmp_path: Path) -> None:
    metrics = given(tmp_path, "same")
    assert metrics["test/i2t/R@1"] == metrics["test/t2i/R@1"] == metrics["test/i2t/R@10"] == 0
    # With labels, the relevant items come last: far below the .46 of random scores.
    assert given(tmp_path, "same", labels=True)["test/mAP"] < 0.35


def test_random_features_score_at_chance(tmp_path: Path) -> None:
    recalls = [given(tmp_path / str(run), "random")["test/t2i/R@5"] for run in range(3)]
    assert abs(sum(recalls) / 3 - 5 / 16) < 0.15  # about three standard deviations of the mean of 96 queries
    assert abs(given(tmp_path, "random", labels=True)["test/mAP"] - 0.46) < 0.05


def test_not_a_number_is_an_error_that_names_the_item(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image 208\.png: NaN"):
        given(tmp_path, "nan", copies=12)
