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


def test_frozen_weights_get_no_gradient_and_no_training_mode() -> None:
    frozen = TimmImageEncoder(image_size=48, model_args=TINY, freeze=True).train()
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not cast(Any, frozen).model.training
    assert not frozen(frozen.processor()(pictures(), True)).pooled.requires_grad
    assert TimmImageEncoder(image_size=48, model_args=TINY).train().training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vit_of_no_one"}, "image encoder vit_of_no_one: cannot be made"),
        ({"name": "resnet18", "image_size": 64}, "resnet18"),
        ({"checkpoint": "nowhere.safetensors"}, "nowhere.safetensors: no such checkpoint file"),
    ],
)
def test_bad_names_are_one_line(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        TimmImageEncoder(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
