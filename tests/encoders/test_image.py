"""The timm image encoder: what it returns, what its switches change, where its weights come from."""

from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from itmbench.encoders import TimmImageEncoder
from itmbench.errors import InputError

TINY = {"patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}


def pictures(count: int = 3) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(0)
    arrays = torch.randint(0, 256, (count, 40, 56, 3), generator=generator, dtype=torch.uint8).numpy()
    return [Image.fromarray(array) for array in arrays]


def test_equals_timm_on_normalised_pixels() -> None:
    encoder = TimmImageEncoder(image_size=48, model_args=TINY).eval()
    inputs = encoder.processor()(pictures(), False)
    mean, std = (torch.tensor(encoder.model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = encoder.model((inputs["pixels"] / 255 - mean) / std)
    torch.testing.assert_close(encoder(inputs).pooled, expected)


def test_crop_and_flip_change_training_pictures_only() -> None:
    def batch(train: bool, **switches: object) -> torch.Tensor:
        torch.manual_seed(1)
        return TimmImageEncoder(image_size=48, model_args=TINY, **switches).processor()(pictures(16), train)["pixels"]  # type: ignore[arg-type]

    plain = batch(False)
    assert torch.equal(batch(True, train_crop=1.0), plain)
    assert not torch.equal(batch(True, train_crop=0.5), plain)
    assert torch.equal(batch(False, train_crop=0.5, train_flip=True), plain)
    flipped = (batch(True, train_crop=1.0, train_flip=True) == plain.flip(-1)).flatten(1).all(1)
    assert 0 < flipped.sum() < 16


def test_loads_a_local_checkpoint_and_resamples_it_to_another_image_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model("vit_tiny_patch16_224", img_size=48, num_classes=5, **TINY)
    path = tmp_path / "vit.safetensors"
    save_file(source.state_dict(), path)
    torch.manual_seed(1)
    loaded = TimmImageEncoder(checkpoint=str(path), image_size=48, model_args=TINY)
    for name, weight in loaded.model.state_dict().items():
        torch.testing.assert_close(weight, source.state_dict()[name])
    larger = TimmImageEncoder(checkpoint=str(path), image_size=64, model_args=TINY)
    assert larger.model.pos_embed.shape[1] == 17
    torch.testing.assert_close(larger.model.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight)
    assert (loaded.pretraining, TimmImageEncoder(image_size=48, model_args=TINY).pretraining) == ("unimodal", "scratch")


def test_a_convolutional_network_gives_its_grid() -> None:
    encoder = TimmImageEncoder("resnet10t", image_size=96, pool=2).eval()
    inputs = encoder.processor()(pictures(), False)
    pixels = (inputs["pixels"] - encoder.mean) / encoder.std
    grid = encoder.model.forward_features(pixels)  # [B, D, 3, 3]
    embeddings = encoder(inputs)
    assert embeddings.tokens is not None and embeddings.mask is not None and embeddings.mask.all()
    torch.testing.assert_close(embeddings.pooled, encoder.model(pixels))
    # of three cells, the first of two averages the first two, the last the last two
    torch.testing.assert_close(embeddings.tokens[:, 0], grid[:, :, :2, :2].mean((2, 3)))
    torch.testing.assert_close(embeddings.tokens[:, 1], grid[:, :, :2, 1:].mean((2, 3)))
    whole = TimmImageEncoder("resnet10t", image_size=96).eval()
    assert whole(inputs).tokens.shape[1] == 9
    assert whole.recipe() != encoder.recipe()
    with pytest.raises(InputError, match="pool is 4; give 1 to 3"):
        TimmImageEncoder("resnet10t", image_size=96, pool=4)(inputs)


@pytest.mark.parametrize(
    ("name", "model_args", "tokens"),
    [
        ("swin_tiny_patch4_window7_224", {"embed_dim": 32, "depths": (1, 1, 1, 1)}, 4),
        ("vit_tiny_patch16_224", {**TINY, "reg_tokens": 4}, 16),
        ("mobilenetv3_small_050", {}, 4),
    ],
)
def test_tokens_are_as_wide_as_the_pooled_vector(name: str, model_args: dict[str, Any], tokens: int) -> None:
    encoder = TimmImageEncoder(name, image_size=64, model_args=model_args).eval()
    embeddings = encoder(encoder.processor()(pictures(), False))
    assert embeddings.tokens is not None
    assert embeddings.tokens.shape == (3, tokens, encoder.width)
    assert embeddings.pooled.shape == (3, encoder.width)


def _vit(seed: int = 0, **args: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return cast(torch.nn.Module, timm.create_model("vit_tiny_patch16_224", img_size=48, **{**TINY, **args}))


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.", "module.", "image.model."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "teacher"])
def test_prefixes_and_wrappers_of_training_scripts_are_stripped(
    prefix: str, wrapper: str | None, tmp_path: Path
) -> None:
    source = _vit().state_dict()
    content: dict[str, Any] = {prefix + name: value for name, value in source.items()}
    if prefix:
        content["text.embedding.weight"] = torch.zeros(3)
    if wrapper:
        content = {"student": {}, wrapper: content}
    torch.save(content, tmp_path / "weights.pth")
    loaded = TimmImageEncoder(checkpoint=str(tmp_path / "weights.pth"), image_size=48, model_args=TINY)
    for name, weight in loaded.model.state_dict().items():
        torch.testing.assert_close(weight, source[name])


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "weights.pth")

    def refused(content: Any, message: str) -> None:
        torch.save(content, path)
        with pytest.raises(InputError, match=message) as error:
            TimmImageEncoder(checkpoint=path, image_size=48, model_args=TINY)
        assert "\n" not in str(error.value)

    whole = _vit().state_dict()
    refused({"a": torch.zeros(1)}, "18 of its 18 weights are missing")
    refused({k: v for k, v in whole.items() if "mlp.fc1" not in k}, r"2 of its 18 weights are missing \(blocks\.0\.mlp")
    refused(_vit(depth=2).state_dict(), r"0 of its 18 weights are missing, and 12 are left over \(blocks\.1")
    refused(_vit(embed_dim=64).state_dict(), "does not fit the image encoder tiny")
    refused([1, 2], "cannot be read as weights")
    (tmp_path / "weights.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as weights"):
        TimmImageEncoder(checkpoint=path, image_size=48, model_args=TINY)


def test_frozen_weights_get_no_gradient_and_no_training_mode() -> None:
    frozen = TimmImageEncoder(image_size=48, model_args=TINY, freeze=True).train()
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not cast(Any, frozen).model.training
    assert not frozen(frozen.processor()(pictures(), True)).pooled.requires_grad
    assert TimmImageEncoder(image_size=48, model_args=TINY).train().training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "vit_base_patch16_2244"},
            r"2244: cannot be made \(Unknown model \(vit_base_patch16_2244\)\); did you mean vit_base_patch16_224 or "
            r".*\? choose one of timm.list_models\(\) or timm.list_pretrained\(\)$",
        ),
        (
            {"name": "resnet10t.none", "pretrained": True},
            r"\(Invalid pretrained tag \(none\) for resnet10t\); did you mean resnet10t",
        ),
        (
            {"name": "resnet10t", "model_args": {"depth": 3}},
            r"cannot be made \(.* unexpected keyword argument 'depth'\); change its options$",
        ),
        (
            {"name": "resnet10t", "pretrained": True},
            r"image encoder resnet10t: its weights could not be downloaded \(An error happened while trying to locate "
            r"the file on the Hub .* in the local cache\); give a file of them as checkpoint=$",
        ),
        ({"checkpoint": "nowhere.safetensors"}, "nowhere.safetensors: no such checkpoint file"),
    ],
)
def test_bad_names_are_one_line(arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=message) as error:
        TimmImageEncoder(**arguments)
    assert "\n" not in str(error.value)
