"""Options, configs and checkpoints that cannot work, or would mean something else than they say."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from refusal import refusal
from toy import toy_arguments

from itmbench.cli.main import main

OPTIONS = {
    "--model.dim=-1": "model.dim: -1 is out of range",
    "--model.dim=0": "model.dim: 0 is out of range",
    "--model.dim=1000000000000": "model.dim: 1e+12 is out of range",
    "--model.lr=0": "model.lr: 0 is out of range; give more than 0",
    "--model.lr=-1": "model.lr: -1 is out of range",
    "--model.lr=.nan": "model.lr: nan is out of range",
    "--model.lr=.inf": "model.lr: inf is out of range",
    "--model.weight_decay=-1": "model.weight_decay: -1 is out of range; give at least 0",
    "--model.weight_decay=.inf": "model.weight_decay: inf is out of range",
    "--model.warmup=2": "model.warmup: 2 is out of range; give at least 0 and at most 1",
    "--model.warmup=-0.1": "model.warmup: -0.1 is out of range",
    "--model.warmup=.nan": "model.warmup: nan is out of range",
    '--model.loss={"class_path": "InfoNCE", "init_args": {"temperature": 0}}': "temperature: 0 is out of range",
    '--model.loss={"class_path": "InfoNCE", "init_args": {"temperature": -1}}': "temperature: -1 is out of range",
    "--model.protocol={}": "may mean captions or labels",
    '--model.protocol={"ties": "optimistic"}': "may mean captions or labels",
    "--threads=0": "threads",
    "--threads=-2": "threads",
    "--seed_everything=-1": "seed_everything: ",
    "--seed_everything=1000000000000": "seed_everything: ",
    "--trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches: 0 is too few",
    "--trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch: 0 is too few",
    "--trainer.max_epochs=1.5": "trainer.max_epochs: ",
    "--trainer.precision=three": "precision",
    "--trainer.accelerator=abacus": "trainer: ",
    "--trainer.limit_train_batches=-1": "trainer: ",
    "--model.image=Nothing": "model.image: there is no Nothing",
    "--model=dscmr": "model: dscmr is the name in `itmbench list` of the class DSCMR; give that",
    "--data=captions": "data: captions is the name in `itmbench list` of the class KarpathyCaptions; give that",
    "--data.batch_size=-1": "data.batch_size: -1 is too few",
    "--data.nothing=3": "nothing",
    "--config=nowhere.yaml": "nowhere.yaml: no such file",
    "--config=": "name a YAML file",
    "--ckpt_path=nowhere.ckpt": "nowhere.ckpt: no such checkpoint",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert OPTIONS[option] in refusal(["fit", *toy_arguments(tmp_path), option], capsys, tmp_path)


def bomb() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(lines)


CONFIGS: dict[str, tuple[str | bytes, str]] = {
    "aliases that multiply": (bomb(), "aliases make it too large"),
    "an alias of itself": ("model: &a\n  init_args: *a\n", "an alias names what it is part of"),
    "a list that holds itself": ("&a [*a]", "an alias names what it is part of"),
    "an alias of nothing": ("model: *nothing", "not YAML"),
    "nested 3,000 deep": ("[" * 3000 + "]" * 3000, "config.yaml"),
    "5,000 digits": ("seed_everything: " + "9" * 5000, "config.yaml: cannot be read"),
    "a day that is none": ("a: 2024-13-45", "config.yaml: cannot be read"),
    "Latin-1": (b"a: caf\xe9", "config.yaml: not YAML"),
    "UTF-16": ("a: 1".encode("utf-16"), "config.yaml"),
    "bytes": (bytes(range(256)), "config.yaml"),
    "a key twice": ("threads: 1\nthreads: 2\n", "threads is given twice"),
    "a tag of Python": ("a: !!python/object/apply:os.abort []", "not YAML"),
    "a tab": ("a:\n\tb: 1", "not YAML"),
    "an option that is none": ("model: {class_path: DualEncoder, init_args: {dimm: 3}}", "dimm"),
    "a value out of range": ("model: {class_path: DualEncoder, init_args: {lr: -1}}", "config.yaml: model.lr: -1"),
    "a protocol of nothing": ("model: {class_path: DualEncoder, init_args: {protocol: {}}}", "captions or labels"),
    "a section that is none": ("modell: {}", "model"),
    "a number": ("5", "config.yaml"),
    "a list": ("[1, 2]", "config.yaml"),
}


@pytest.mark.parametrize("command", ["fit", "bench"])
@pytest.mark.parametrize("case", CONFIGS)
def test_configs(case: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, named = CONFIGS[case]
    file = tmp_path / "config.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    if command == "bench":
        line = refusal(["bench", str(file), "--results", str(tmp_path / "results")], capsys, tmp_path)
        assert "config.yaml" in line
    else:
        toy = ["--data=toy.ToyData", f"--data.root={tmp_path / 'toy'}", f"--trainer.default_root_dir={tmp_path}"]
        assert named in refusal(["fit", *toy, f"--config={file}"], capsys, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without a logger."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["fit", *toy_arguments(folder, "--trainer.max_epochs=1", "--trainer.logger=false")]) == 0
    return folder


def spoilt(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    def spoil(content: dict[str, Any]) -> dict[str, Any]:
        change(content)
        return content

    return spoil


CHECKPOINTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list": (lambda content: [1, 2], "not a checkpoint but list"),
    "a tensor": (lambda content: torch.ones(3), "not a checkpoint but Tensor"),
    "an empty mapping": (lambda content: {}, "not a checkpoint but dict"),
    "weights alone": (lambda content: content["state_dict"], "not a checkpoint but"),
    "weights a number": (spoilt(lambda c: c.update(state_dict=5)), "not a checkpoint but dict"),
    "no weights": (spoilt(lambda c: c.update(state_dict={})), "does not fit"),
    "weights of NaN": (
        spoilt(lambda c: [value.fill_(torch.nan) for value in c["state_dict"].values() if value.is_floating_point()]),
        "hold NaN or infinite numbers",
    ),
    "one infinite weight": (
        spoilt(lambda c: next(v for v in c["state_dict"].values() if v.ndim == 2).view(-1)[:1].fill_(torch.inf)),
        "1 weights of the checkpoint hold NaN",
    ),
    "a weight too many": (spoilt(lambda c: c["state_dict"].update(more=torch.ones(2))), "does not fit"),
    "other options": (
        spoilt(lambda c: c["hyper_parameters"]["init_args"].update(dim=99)),
        "the checkpoint was trained with dim 99, not 32",
    ),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoints(case: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, named = CHECKPOINTS[case]
    content = change(torch.load(run / "checkpoints" / "best.ckpt", weights_only=True))
    torch.save(content, tmp_path / "c.ckpt")
    command = ["test", *toy_arguments(run, "--trainer.logger=false"), f"--ckpt_path={tmp_path / 'c.ckpt'}"]
    assert named in refusal(command, capsys, tmp_path)


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_checkpoints_cut_short(size: int, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "c.ckpt"
    cut.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    os.truncate(cut, size)
    command = ["test", *toy_arguments(run, "--trainer.logger=false"), f"--ckpt_path={cut}"]
    assert "DIR/c.ckpt: " in refusal(command, capsys, tmp_path)


def test_a_run_is_never_replaced_by_another(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    short = ["--trainer.max_epochs=1", "--trainer.logger=false", "--model.lr=0.5"]
    assert "belongs to another run" in refusal(["fit", *toy_arguments(run, *short)], capsys, run)
    assert main(["test", *toy_arguments(run, *short), f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert yaml.safe_load(before[run / "checkpoints" / "config.yaml"])["model"]["init_args"]["lr"] == 0.003
