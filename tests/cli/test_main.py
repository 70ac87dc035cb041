"""The command line as its users meet it: the journeys, and one line for what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from itmbench.cli.main import main

TINY_IMAGE = (
    "{class_path: TimmImageEncoder, init_args: {image_size: 32, train_crop: 1.0, "
    "model_args: {patch_size: 16, embed_dim: 32, depth: 1, num_heads: 2}}}"
)
TINY_TEXT = "{class_path: ScratchTextEncoder, init_args: {width: 32, depth: 1, heads: 2, vocab_size: 100}}"


def arguments(folder: Path, *more: str) -> list[str]:
    """Options of a run on the toy dataset that writes below the folder."""
    trainer = ["accelerator=cpu", "max_epochs=20", "enable_progress_bar=false", "enable_model_summary=false"]
    return [
        *("--data=toy.ToyData", f"--data.root={folder / 'toy'}"),
        *("--model=DualEncoder", "--model.dim=32", "--model.lr=0.003"),
        *(f"--model.image={TINY_IMAGE}", f"--model.text={TINY_TEXT}"),
        *(f"--trainer.{option}" for option in trainer),
        f"--trainer.default_root_dir={folder}",
        *more,
    ]


def test_fit_then_test_then_predict_from_the_saved_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *arguments(tmp_path)]) == 0
    said = capsys.readouterr().out
    hint = next(line for line in said.splitlines() if "itmbench test --config" in line).split()
    config, checkpoint = Path(hint[3]), Path(hint[5])
    assert config.exists() and checkpoint.name == "best.ckpt"
    torch.load(checkpoint, weights_only=True)

    assert main(hint[1:]) == 0
    table = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.startswith("  ")}
    assert table.startswith("toy, test: caption-retrieval, version 1")
    assert lines["i2t/R@1"][1:] == ["random", "order", "0.0625"]
    assert float(lines["rSum"][0]) > 400  # 16 pictures of 16 kinds; chance is about 190

    assert main(["predict", *hint[2:], "--embeddings.folder=vectors"]) == 0
    images, texts, owner = (np.load(tmp_path / "vectors" / f"{n}.npy") for n in ("images", "texts", "text_to_image"))
    assert images.shape == (16, 32) and texts.shape == (32, 32)
    assert ((images @ texts.T).argmax(0) == owner).mean() > 0.5
    assert (tmp_path / "vectors" / "text_ids.txt").read_text().split()[:2] == ["t224", "t225"]


def test_an_offline_tracker_takes_the_curves(tmp_path: Path) -> None:
    logger = "{class_path: WandbLogger, init_args: {offline: true, save_dir: " + str(tmp_path) + "}}"
    options = arguments(tmp_path, "--trainer.max_epochs=1", f"--trainer.logger={logger}")
    # A process of its own: the tracker writes when its process ends.
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        [sys.executable, "-m", "itmbench", "fit", *options],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        check=True,
    )
    run = next((tmp_path / "wandb").glob("offline-run-*"))
    assert next(run.glob("*.wandb")).stat().st_size > 1000


def test_resume_goes_on_from_the_last_epoch(tmp_path: Path) -> None:
    kept = [f"--{which}.dirpath={tmp_path / 'kept'}" for which in ("best", "last")]
    last = tmp_path / "kept" / "last.ckpt"
    # A rate of 0 never improves, so the best stays the first; the last must still move on.
    command = ["fit", *arguments(tmp_path, *kept, "--model.lr=0")]
    assert main([*command, "--trainer.max_epochs=2"]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 24
    assert main([*command, "--trainer.max_epochs=3", f"--ckpt_path={last}"]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 36


def test_audit_prints_a_line_a_check_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *arguments(tmp_path)]) == 0
    title, *lines = capsys.readouterr().out.splitlines()[-6:]
    assert title == "toy, audit of DualEncoder: 16 images, 32 texts"
    assert [line.split()[:2] for line in lines] == [
        [check, "pass"] for check in ("alone", "pairs", "frozen", "random", "constant")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_audit_of_a_leaky_checkpoint_ends_with_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = arguments(tmp_path)
    leaky = [option.replace("=DualEncoder", "=toy_leaks.Counting") for option in options]
    best = f"--best.dirpath={tmp_path}"
    assert main(["fit", *leaky, best, "--trainer.max_epochs=1", "--data.copies=1"]) == 0
    capsys.readouterr()
    assert main(["audit", *leaky, f"--ckpt_path={tmp_path / 'best.ckpt'}", "--images=8"]) == 1
    title, *lines = capsys.readouterr().out.splitlines()[-6:]
    assert title == "toy, audit of Counting: 8 images, 16 texts"
    assert [line.split()[0] for line in lines if "FAIL" in line] == ["frozen"]


WRONG = {
    "no such method": (["fit", "--model=NoSuch", "--data=Flickr30KMini"], "NoSuch"),
    "no such option": (["fit", "--model=DualEncoder", "--model.colour=1", "--data=Flickr30KMini"], "colour"),
    "no such dataset folder": (
        ["fit", "--model=DualEncoder", "--data=KarpathyCaptions", "--data.root=nowhere", "--trainer.accelerator=cpu"],
        "nowhere",
    ),
    "no such checkpoint": (
        ["audit", "--model=DualEncoder", "--data=Flickr30KMini", "--ckpt_path=nowhere.ckpt"],
        "nowhere.ckpt: no such checkpoint",
    ),
    "no such checkpoint by name": (
        ["test", "--model=DualEncoder", "--data=Flickr30KMini", "--ckpt_path=best"],
        "best: no such checkpoint",
    ),
    "a folder as checkpoint": (
        ["test", "--model=DualEncoder", "--data=Flickr30KMini", "--ckpt_path=."],
        ".: no such checkpoint",
    ),
    "no such benchmark": (["bench", "nowhere.yaml"], "nowhere.yaml: no such file"),
    "no results": (["report", "--results", "nowhere"], "nowhere: no such results folder"),
    "no such corpus": (
        ["data", "verify", "nothing"],
        "nothing: no such name among the datasets; choose one of captions",
    ),
    "no root": (["data", "verify", "captions"], "root"),
    "wrong root": (["data", "verify", "mirflickr25k", "--root", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, message = WRONG[kind]
    assert main(command) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    said = [line for line in lines if line.startswith("itmbench: ")]
    assert len(said) == 1 and said[0] == lines[-1]
    assert message in said[0]
    assert "Traceback" not in "".join(lines)


def test_an_unreadable_image_in_a_loader_process_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *arguments(tmp_path, "--trainer.max_epochs=1")]) == 0
    broken = "toy_broken.BrokenToyData"
    command = ["fit", *arguments(tmp_path, "--trainer.max_epochs=1", "--data.num_workers=1")]
    command[command.index("--data=toy.ToyData")] = f"--data={broken}"
    assert main(command) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("itmbench: ") and "0.png: not a readable image" in last and "replace the file" in last


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{sys.executable} -u -m itmbench list | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "methods:\n", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--model SEDRAA", "model: there is no SEDRAA; give one of CCA, CLIP, "),
        ("--model SEDRA --model.dimm 3", "model: SEDRA: Option 'dimm' is not accepted"),
        ("--model SEDRA --model.dim abc", "model.dim: abc is no int"),
        ("--model SEDRA --model.loss Info", "model.loss: there is no Info; give one of InfoNCE, TripletLoss, or "),
        ("--model SEDRA --data Foo", "data: there is no Foo; give one of KarpathyCaptions, "),
        ("--model no_module.X", "model: X: No module named 'no_module'"),
        ("--model SEDRA --trainer.max_epochs x", "trainer.max_epochs: x is none of int, "),
        ("--model SEDRA --trainer.devices 0", "trainer: "),
        ("--model SEDRA --data.batch_size 0", "data.batch_size: 0 is too few; give 1 or more"),
    ],
)
def test_a_wrong_option_is_told_in_a_short_line(options: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--data", "MirFlickrMini", *options.split()]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("itmbench: ")]
    assert len(lines) == 1 and lines[0].startswith(f"itmbench: {said}") and len(lines[0]) < 300


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("audit --images 1", "--images 1: give 2 or more"),
        ("predict --embeddings.folder FILE/below", "--embeddings.folder "),
    ],
)
def test_what_could_only_fail_at_the_end_is_told_at_the_start(
    command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    encoders = ["--model.image", TINY_IMAGE, "--model.text", TINY_TEXT]
    options = ["--model", "DualEncoder", *encoders, "--data", "toy.ToyData", "--data.root", str(tmp_path / "toy")]
    name, *rest = command.split()
    assert main([name, *options, "--trainer.accelerator", "cpu", *rest]) == 2
    error = capsys.readouterr().err
    assert f"no --ckpt_path: {'test' if name == 'audit' else name} takes the model as it is built, untrained" in error
    assert error.splitlines()[-1].startswith(f"itmbench: {said}")
