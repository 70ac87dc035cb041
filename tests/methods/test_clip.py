"""CLIP as it comes, fine-tuned and from scratch: its loss and its zero-shot results are those of transformers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToyData, printed_metrics, trainer
from toy_clip import save_toy_clip
from transformers import CLIPProcessor

from itmbench.cli.main import main
from itmbench.encoders import (
    PretrainedCLIPImageEncoder,
    PretrainedCLIPTextEncoder,
    ScratchCLIPTextEncoder,
)
from itmbench.errors import InputError
from itmbench.evaluation import caption_retrieval
from itmbench.methods.clip import CLIP
from itmbench.methods.losses import InfoNCE, TripletLoss

ZERO_SHOT = Path(__file__).parents[2] / "benchmarks" / "configs" / "methods" / "clip_zeroshot.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clip")
    save_toy_clip(made)
    return made


def arguments(command: str, folder: Path, name: Path | str) -> list[str]:
    trainer = ["accelerator=cpu", "logger=false", "enable_progress_bar=false", "enable_model_summary=false"]
    return [
        *(command, f"--config={ZERO_SHOT}", f"--model.name={name}"),
        *("--data=toy.ToyData", f"--data.root={folder / 'toy'}"),
        *(f"--trainer.{option}" for option in [*trainer, f"default_root_dir={folder}"]),
    ]


def test_zero_shot_from_the_command_line_is_what_transformers_scores(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("test", tmp_path, folder)) == 0
    table = capsys.readouterr().out
    assert table.startswith("toy, test: caption-retrieval")
    found = printed_metrics(table)

    corpus, processor = ToyData(str(tmp_path / "toy")).corpus, CLIPProcessor.from_pretrained(folder)
    rows = corpus.stages["test"].images
    texts = corpus.texts_of(rows)
    assert corpus.images is not None
    with torch.no_grad():
        inputs = processor(
            text=[corpus.texts[row] for row in texts],
            images=[corpus.images[row] for row in rows],
            **{"return_tensors": "pt", "padding": True, "truncation": True, "max_length": 24},
        )
        made = save_toy_clip(tmp_path / "again")(**inputs)
    owner = corpus.text_to_image[texts] - rows[0]
    expected = caption_retrieval(made.image_embeds, made.text_embeds, owner)
    assert 0 < expected["t2i/R@5"] < 1
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-4 if value < 1 else 0.006), key


def test_the_loss_is_that_of_transformers_at_the_temperature_of_the_weights(folder: Path, tmp_path: Path) -> None:
    model: Any = CLIP(name=str(folder))
    data = ToyData(str(tmp_path))
    trainer(tmp_path, max_steps=0).fit(model, data)
    corpus = data.corpus
    assert corpus.images is not None
    pictures, texts = [corpus.images[row] for row in range(6)], [corpus.texts[2 * row] for row in range(6)]
    batch = {
        "image": model.image.processor()(pictures, False),
        "text": model.text.processor()(texts, False),
        "image_index": torch.arange(6),
    }
    inputs = CLIPProcessor.from_pretrained(folder)(
        text=texts, images=pictures, return_tensors="pt", padding=True, truncation=True, max_length=24
    )
    expected = save_toy_clip(tmp_path / "again")(**inputs, return_loss=True).loss
    torch.testing.assert_close(model.training_loss(batch), expected, atol=1e-4, rtol=0)
    assert model.loss.log_scale.item() == pytest.approx(3.0, abs=1e-5)
    for loss in (InfoNCE(temperature=0.5), TripletLoss()):
        other = CLIP(name=str(folder), loss=loss)
        other.trainer = model.trainer
        assert other.training_loss(batch).item() != pytest.approx(expected.item(), rel=0.01)


def test_fine_tuning_starts_from_the_weights_and_moves_both_towers_but_not_a_frozen_one(
    folder: Path, tmp_path: Path
) -> None:
    frozen = PretrainedCLIPImageEncoder(str(folder), freeze=True)
    for model, moving in (
        (CLIP(name=str(folder)), {"image", "text", "loss"}),
        (CLIP(image=frozen, text=PretrainedCLIPTextEncoder(str(folder))), {"text", "loss"}),
    ):
        before = {
            name: weight.clone() for name, weight in model.state_dict().items() if isinstance(weight, torch.Tensor)
        }
        trainer(tmp_path, max_steps=2, limit_val_batches=0).fit(model, ToyData(str(tmp_path)))
        after = model.state_dict()
        assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == moving
        assert model.pretraining == "image-text"


def test_the_default_is_small_and_from_scratch() -> None:
    model: Any = CLIP()
    assert model.pretraining == "scratch" and sum(w.numel() for w in model.parameters()) < 3_000_000
    assert model.loss.log_scale.item() == pytest.approx(-math.log(0.07))


def test_what_does_not_fit_is_one_line(folder: Path) -> None:
    wide = ScratchCLIPTextEncoder(dim=7, width=32, depth=1, heads=2)
    with pytest.raises(InputError, match="image tower projects to 256 dimensions and the text tower to 7"):
        CLIP(text=wide)
    with pytest.raises(InputError, match="give it, or image and text, not both"):
        CLIP(name=str(folder), text=wide)


@pytest.mark.parametrize(
    ("more", "message"),
    [([], "CLIP nowhere: cannot be loaded"), (["--model.image=TimmImageEncoder"], "TimmImageEncoder")],
)
def test_wrong_towers_on_the_command_line_are_one_line(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments("test", tmp_path, "nowhere"), *more]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("itmbench: ")]
    assert len(said) == 1 and message in said[0]
