"""A trained method from a folder or a file: the same vectors and ranks as in its test, without data or trainer."""

import dataclasses
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from own_features import write_features
from safetensors.torch import save_file
from toy import ToyData, toy_encoders, trained, trainer

import itmbench
from itmbench.data.corpus import Strings
from itmbench.data.datasets import FeatureFolder
from itmbench.encoders import Embeddings, FeatureEncoder, TimmImageEncoder
from itmbench.errors import InputError
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.methods.sedra import SEDRA
from itmbench.runner import registry
from itmbench.store.checkpoint import as_options

METHODS = [entry.name for entry in registry.entries("methods") if entry.name not in ("clip", "identity")]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_loaded_as_it_was_trained(tmp_path: Path, name: str) -> None:
    features = write_features(tmp_path / "features")
    data = FeatureFolder(str(features))
    model = registry.find("methods", name).load()(image=FeatureEncoder(width=16), text=FeatureEncoder(width=16))
    loaded = itmbench.load(trained(tmp_path, model, data))
    assert type(loaded) is type(model) and not loaded.training and loaded.options == model.options
    images, texts = np.load(features / "images.npy")[:5], np.load(features / "texts.npy")[:7]
    found = loaded.rank(loaded.encode_texts(list(texts)), loaded.encode_images(list(images)))
    model.eval()
    expected = model.score(model.encode_images(list(images)), model.encode_texts(list(texts))).T
    torch.testing.assert_close(found.scores, expected.gather(1, found.order))
    assert found.order.shape == (7, 5) and bool((found.scores.diff(dim=1) <= 0).all())


def test_files_pictures_and_strings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = ToyData(str(tmp_path / "toy"))
    checkpoint = trained(tmp_path, DualEncoder(dim=8, **toy_encoders()), data)  # type: ignore[arg-type]
    monkeypatch.chdir("/")
    loaded = itmbench.load(checkpoint.parent)  # as a cell's folder
    number = sum(weight.numel() for weight in loaded.parameters())
    assert repr(loaded) == (
        "DualEncoder(image=TimmImageEncoder(tiny), text=ScratchTextEncoder(), dim=8): "
        f"{number:,} parameters, trained on toy"
    )
    names = [data.corpus.images.root / name for name in data.corpus.images.names[:3]]  # type: ignore[union-attr]
    by_path = loaded.encode_images(names, batch_size=2)
    by_picture = loaded.encode_images([data.corpus.images[row] for row in range(3)])  # type: ignore[index]
    torch.testing.assert_close(by_path.pooled, by_picture.pooled)
    texts = loaded.encode_texts(["a red square on a black ground", "pink behind"])
    assert "pink behind" not in caplog.text
    unknown = "not in the vocabulary of this model, so may match poorly: "
    for text, note in (
        ("red " * 50, "cut to its first 40 tokens of 52"),
        ("a 犬, 犬?", f"{unknown}犬"),
        ("redpink " * 40, f"cut to its first 40 tokens of 162; {unknown}redpink"),
    ):
        loaded.encode_texts(["pink", text, "\u200b"])
        assert caplog.messages[-2].endswith(f"': {note}") and caplog.messages[-1].endswith(": has no words")
    loaded.encode_texts(["a 犬"] * 9)
    assert caplog.messages[-1] == "and 4 more texts likewise" and caplog.messages[-6:-1] == [caplog.messages[-2]] * 5
    one, other = loaded.rank(texts, by_path), loaded.rank(by_path[:2], texts)
    assert one.order.shape == (2, 3) and other.order.shape == (2, 2)
    for wrong in ((texts, texts), (by_path, by_path), (Embeddings(texts.pooled), by_path)):
        with pytest.raises(InputError, match=r"^rank: give the result of encode_images and that of encode_texts"):
            loaded.rank(*wrong)
    with monkeypatch.context() as patch:
        patch.setattr(loaded, "score", lambda images, texts: torch.full((len(images), len(texts)), torch.nan))
        with pytest.raises(InputError, match="rank: a score is NaN"):
            loaded.rank(texts, by_path)
    with pytest.raises(InputError, match="nothing to encode"):
        loaded.encode_texts([])
    with pytest.raises(InputError, match="batch_size 0; give 1 or more"):
        loaded.encode_images(names, batch_size=0)
    with pytest.raises(InputError, match="best: -1 items of the gallery; give 1 or more"):
        one.best(-1)
    with pytest.raises(InputError, match=r"'a\\udcff': holds half of a surrogate pair"):
        loaded.encode_texts(["a\udcff"])
    with pytest.raises(InputError, match=r"none\.jpg: no such image"):
        loaded.encode_images([tmp_path / "none.jpg"])


def test_load_from_checkpoint_takes_its_own_options_only(tmp_path: Path) -> None:
    data = FeatureFolder(str(write_features(tmp_path / "features")))
    encoders = {"image": FeatureEncoder(width=16), "text": FeatureEncoder(width=16)}
    checkpoint = trained(tmp_path, SEDRA(8, intra_k=1, paths=["local"], **encoders), data)  # type: ignore[arg-type]
    loaded = SEDRA.load_from_checkpoint(checkpoint, weights_only=True)
    assert (loaded.regions.intra.k, loaded.paths) == (1, ["local"])
    with pytest.raises(TypeError, match="intra_k"):
        SEDRA.load_from_checkpoint(checkpoint, intra_k=8)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="holds a SEDRA, not a DualEncoder"):
        DualEncoder.load_from_checkpoint(checkpoint)


def test_a_checkpoint_used_with_other_options_is_refused(tmp_path: Path) -> None:
    data = FeatureFolder(str(write_features(tmp_path / "features")))

    def model(**options: Any) -> SEDRA:
        return SEDRA(8, image=FeatureEncoder(width=16), text=FeatureEncoder(width=16), **options)

    checkpoint = trained(tmp_path, model(intra_k=1), data)
    test = trainer(tmp_path)
    test.test(model(intra_k=1, lr=0.5), data, ckpt_path=checkpoint, verbose=False)
    with pytest.raises(InputError, match=r"SEDRA: the checkpoint was trained with intra_k 1, not 8; use it with"):
        test.test(model(), data, ckpt_path=checkpoint, verbose=False)


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save([1, 2], tmp_path / "list.ckpt")
    bare = {"state_dict": {}, "pytorch-lightning_version": "2.6.0"}
    torch.save(bare, tmp_path / "bare.ckpt")
    torch.save(bare | {"hyper_parameters": {"class_path": "itmbench.methods.losses.InfoNCE"}}, tmp_path / "loss.ckpt")
    for name, message in (
        ("none.ckpt", "no such checkpoint"),
        ("text.ckpt", "not a checkpoint of tensors and plain values"),
        ("list.ckpt", "not a checkpoint but list"),
        ("bare.ckpt", "does not say how its method was built"),
        ("loss.ckpt", "holds a InfoNCE, not a Matcher"),
    ):
        with pytest.raises(InputError, match=f"{name}: {message}") as refused:
            itmbench.load(tmp_path / name)
        assert "\n" not in str(refused.value)


def test_a_folder_is_a_model_with_its_config_or_says_what_lies_below(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("a/b/seed0", "run/checkpoints", "a/.running"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "best.ckpt").touch()
    cell, run = tmp_path / "a/b/seed0", tmp_path / "run"
    with pytest.raises(InputError, match=r"seed0: no trained model with its config.yaml"):
        as_options(cell)
    (cell / "config.yaml").touch()
    (run / "config.yaml").touch()
    assert as_options(cell) == as_options(cell / "best.ckpt")
    best = run / "checkpoints/best.ckpt"
    assert as_options(run) == as_options(best) == ["--config", str(run / "config.yaml"), "--ckpt_path", str(best)]
    with pytest.raises(InputError, match=f"{tmp_path}: no best.ckpt here; give {cell}, {run}$"):
        itmbench.load(tmp_path)
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "best.ckpt").touch()
    with pytest.raises(InputError, match=r"or one of 2 more below it$"):
        itmbench.load(tmp_path)
    with pytest.raises(InputError, match=r"no best.ckpt here; give the folder of a cell or of a run, or a checkpoint"):
        itmbench.load(tmp_path / "empty")


def test_items_that_the_method_cannot_encode_are_refused(tmp_path: Path) -> None:
    toy = ToyData(str(tmp_path / "toy"))
    pictures = itmbench.load(trained(tmp_path, DualEncoder(dim=8, **toy_encoders()), toy))  # type: ignore[arg-type]
    (tmp_path / "b").mkdir()
    data = FeatureFolder(str(write_features(tmp_path / "features")))
    model = DualEncoder(dim=8, image=FeatureEncoder(width=16), text=FeatureEncoder(width=16))
    features = itmbench.load(trained(tmp_path / "b", model, data))
    width = np.load(tmp_path / "features" / "images.npy").shape[-1]
    cases: list[tuple[Any, Any, str]] = [
        (pictures.encode_texts, "a red square", "encode_texts: give a list of strings, not one str"),
        (pictures.encode_images, "a.jpg", "encode_images: give a list of paths or PIL images, not one str"),
        (features.encode_images, 5, "encode_images: give a list of feature arrays, not one int"),
        (pictures.encode_images, [np.ones((4, 4, 3))], "encode_images: this method reads photographs"),
        (pictures.encode_texts, [np.ones(4)], "encode_texts: this method reads words"),
        (features.encode_images, ["a.jpg"], "encode_images: this method reads ready-made features"),
        (features.encode_texts, ["words"], "encode_texts: this method reads ready-made features"),
        (features.encode_images, [np.ones((2, 2, width))], "encode_images: this method reads ready-made features"),
        (features.encode_images, [np.ones(width + 1)], "encode_images: item 0 has"),
        (features.encode_images, [np.full(width, np.nan)], "encode_images: item 0 holds NaN"),
    ]
    for encode, items, message in cases:
        with pytest.raises(InputError, match=f"^{message}"):
            encode(items)


def test_another_dataset_is_read_with_the_vocabulary_of_training(tmp_path: Path) -> None:
    """Lightning restores the vocabulary after the loaders' processors were handed over."""

    class Renamed(ToyData):
        """The same captions at test, others in training."""

        def read(self) -> Any:
            corpus = super().read()
            train = {int(row) for row in corpus.texts_of(corpus.train)}
            strings = [f"zz{row} qq" if row in train else text for row, text in enumerate(corpus.texts.strings)]  # type: ignore[union-attr]
            return dataclasses.replace(corpus, texts=Strings(strings))

    def tested(data: ToyData) -> dict[str, float]:
        test = trainer(tmp_path)
        model = DualEncoder(dim=32, **toy_encoders())  # type: ignore[arg-type]
        return dict(test.test(model, data, ckpt_path=checkpoint, verbose=False)[0])

    L.seed_everything(0, verbose=False)
    fit = trainer(tmp_path, max_epochs=4)
    fit.fit(DualEncoder(dim=32, lr=3e-3, **toy_encoders()), ToyData(str(tmp_path / "toy")))  # type: ignore[arg-type]
    checkpoint = tmp_path / "best.ckpt"
    fit.save_checkpoint(checkpoint)
    own, other = tested(ToyData(str(tmp_path / "toy"))), tested(Renamed(str(tmp_path / "toy")))
    assert own["test/rSum"] == other["test/rSum"] > 1.5 * own["test/chance/rSum"]


def test_weights_of_a_checkpoint_need_no_file_of_pretrained_ones(tmp_path: Path) -> None:
    weights = tmp_path / "vit.safetensors"
    arguments = {**toy_encoders()["image"].options["init_args"], "checkpoint": str(weights), "freeze": True}
    save_file(TimmImageEncoder(**{**arguments, "checkpoint": None}).model.state_dict(), weights)
    model = DualEncoder(dim=8, image=TimmImageEncoder(**arguments), text=toy_encoders()["text"])
    data = ToyData(str(tmp_path / "toy"))
    checkpoint = trained(tmp_path, model, data)
    metrics = trainer(tmp_path).test(model, data, verbose=False)[0]
    # Another file in its place changes nothing: frozen weights are those of the checkpoint.
    torch.manual_seed(9)
    save_file(TimmImageEncoder(**{**arguments, "checkpoint": None}).model.state_dict(), weights)
    again = DualEncoder(dim=8, image=TimmImageEncoder(**arguments), text=toy_encoders()["text"])
    test = trainer(tmp_path)
    assert test.test(again, data, ckpt_path=checkpoint, verbose=False)[0] == metrics
    weights.unlink()
    loaded = itmbench.load(checkpoint)
    picture = [data.corpus.images[0]]  # type: ignore[index]
    torch.testing.assert_close(loaded.encode_images(picture).pooled, model.encode_images(picture).pooled)
