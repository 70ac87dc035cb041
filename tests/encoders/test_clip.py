"""CLIP's towers: published weights must score as transformers' own CLIP does; small ones learn their words."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity, normalize
from toy_clip import save_toy_clip
from transformers import BertConfig, CLIPProcessor

from itmbench.data.corpus import Strings
from itmbench.encoders import (
    PretrainedCLIPImageEncoder,
    PretrainedCLIPTextEncoder,
    ScratchCLIPImageEncoder,
    ScratchCLIPTextEncoder,
)
from itmbench.errors import InputError

TEXTS = ["a red square", "blue in front, red too", "red"]
LONG = "a red square on a blue ground and another red one"


def pictures() -> list[Image.Image]:
    """Of three shapes: upright, wide, and smaller than the model's input."""
    generator = np.random.default_rng(0)
    coarse = [
        generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((9, 7), (6, 11), (5, 5))
    ]
    return [Image.fromarray(array).resize((array.shape[1] * 5, array.shape[0] * 5)) for array in coarse]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clip")
    save_toy_clip(made)
    return made


def test_zero_shot_scores_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    model = save_toy_clip(tmp_path)
    image, text = PretrainedCLIPImageEncoder(str(folder)).eval(), PretrainedCLIPTextEncoder(str(folder)).eval()
    with torch.no_grad():
        inputs = CLIPProcessor.from_pretrained(folder)(text=TEXTS, images=pictures(), return_tensors="pt", padding=True)
        expected = model(**inputs).logits_per_image
        ours = image(image.processor()(pictures(), False)), text(text.processor()(TEXTS, False))
    cosines = normalize(ours[0].pooled, dim=-1) @ normalize(ours[1].pooled, dim=-1).T
    assert cosines.std() > 1e-3
    torch.testing.assert_close(cosines / image.temperature, expected, atol=1e-4, rtol=0)
    assert (image.width, text.width, image.pretraining, text.pretraining) == (16, 16, "image-text", "image-text")


def test_tokens_lie_in_the_common_space(folder: Path) -> None:
    """The token that ends a text is its pooled vector; a patch is projected as the class token is."""
    image, text = PretrainedCLIPImageEncoder(str(folder)).eval(), PretrainedCLIPTextEncoder(str(folder)).eval()
    words, patches = text(text.processor()(TEXTS, False)), image(image.processor()(pictures(), False))
    for row, mask in enumerate(words.mask):
        torch.testing.assert_close(words.tokens[row, int(mask.sum()) - 1], words.pooled[row])
    assert patches.tokens.shape == (3, 16, 16) and patches.mask.all()
    tower: Any = image.tower
    inputs = image.processor()(pictures(), False)
    states = tower((inputs["pixels"] - image.mean) / image.std).last_hidden_state
    torch.testing.assert_close(image.projection(tower.post_layernorm(states[1, 4])), patches.tokens[1, 3])


def test_long_texts_are_cut_and_still_end(folder: Path) -> None:
    text = PretrainedCLIPTextEncoder(str(folder)).eval()
    inputs = text.processor()([LONG], False)
    assert inputs["input_ids"].shape == (1, 24)
    assert inputs["input_ids"][0, -1] == text.tokenizer.eos_token_id


def test_crop_changes_training_pictures_only(folder: Path) -> None:
    def batch(train: bool, crop: float) -> torch.Tensor:
        torch.manual_seed(1)
        made = PretrainedCLIPImageEncoder(str(folder), train_crop=crop).processor()(pictures(), train)["pixels"]
        assert made.dtype == torch.uint8 and made.shape == (3, 3, 32, 32)
        return made

    assert torch.equal(batch(True, 1.0), batch(False, 1.0))
    assert torch.equal(batch(False, 0.5), batch(False, 1.0))
    assert not torch.equal(batch(True, 0.5), batch(False, 1.0))


def test_frozen_towers_get_no_gradient(folder: Path) -> None:
    for kind in (PretrainedCLIPImageEncoder, PretrainedCLIPTextEncoder):
        assert not any(weight.requires_grad for weight in kind(str(folder), freeze=True).parameters())
        assert all(weight.requires_grad for weight in kind(str(folder)).parameters())
        assert kind(str(folder), lr_multiplier=0.1).lr_multiplier == 0.1


def scratch_text(**options: int) -> ScratchCLIPTextEncoder:
    torch.manual_seed(0)
    encoder = ScratchCLIPTextEncoder(dim=16, width=32, depth=1, heads=2, vocab_size=100, **options).eval()
    encoder.fit(Strings(TEXTS), np.arange(len(TEXTS)))
    return encoder


def test_from_scratch_a_text_is_read_at_its_last_token(tmp_path: Path) -> None:
    encoder = scratch_text()
    made = encoder(encoder.processor()(TEXTS, False))
    assert made.tokens is not None and made.mask is not None and made.pooled.shape == (3, 16)
    for row, mask in enumerate(made.mask):
        torch.testing.assert_close(made.tokens[row, int(mask.sum()) - 1], made.pooled[row])
    assert cosine_similarity(made.pooled[0], made.pooled[1], dim=0) < 0.999
    cut = scratch_text(max_length=4)
    assert cut.processor()(TEXTS, False)["input_ids"].shape[1] == 4
    torch.testing.assert_close(
        cut(cut.processor()([TEXTS[1]], False)).tokens[0, 3], cut(cut.processor()([TEXTS[1]], False)).pooled[0]
    )


def test_from_scratch_sizes_and_crop_are_those_given() -> None:
    encoder = ScratchCLIPImageEncoder(dim=8, width=32, depth=2, heads=2, patch_size=8, image_size=24, train_crop=0.5)
    made = encoder(encoder.processor()(pictures(), False))
    assert made.tokens is not None and (made.pooled.shape, made.tokens.shape) == ((3, 8), (3, 9, 8))
    assert len(encoder.tower.encoder.layers) == 2 and encoder.tower.encoder.layers[0].self_attn.num_heads == 2
    assert encoder.pretraining == scratch_text().pretraining == "scratch"
    torch.manual_seed(0)
    assert not torch.equal(
        encoder.processor()(pictures(), True)["pixels"], encoder.processor()(pictures(), False)["pixels"]
    )


def without(folder: Path, copy: Path, *names: str) -> str:
    """A copy of the folder that lacks some files."""
    shutil.copytree(folder, copy)
    for name in names:
        (copy / name).unlink()
    return str(copy)


@pytest.mark.parametrize("kind", [PretrainedCLIPImageEncoder, PretrainedCLIPTextEncoder])
def test_what_cannot_be_loaded_is_one_line(kind: Any, folder: Path, tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path / "bert")
    names = {
        str(tmp_path / "nowhere"): "nowhere: cannot be loaded",
        "nobody/nothing": "nobody/nothing: cannot be loaded",
        str(tmp_path / "bert"): "model of type bert, not clip",
        without(folder, tmp_path / "no-weights", "model.safetensors"): "no-weights: cannot be loaded",
    }
    for name, message in names.items():
        with pytest.raises(InputError, match=message) as error:
            kind(name)
        assert "\n" not in str(error.value)


def test_missing_weights_pictures_or_words_are_one_line(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    part = Path(without(folder, tmp_path / "part", "model.safetensors"))
    weights = load_file(folder / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "vision" in name}, part / "model.safetensors")
    with pytest.raises(InputError, match="of its weights are missing"):
        PretrainedCLIPTextEncoder(str(part))
    with pytest.raises(InputError, match=r"cannot be loaded \(Can't load image processor"):
        PretrainedCLIPImageEncoder(without(folder, tmp_path / "no-pictures", "preprocessor_config.json"))
    with pytest.raises(InputError, match="519 tokens and the tokenizer 2"):
        PretrainedCLIPTextEncoder(without(folder, tmp_path / "no-words", "tokenizer.json", "tokenizer_config.json"))
