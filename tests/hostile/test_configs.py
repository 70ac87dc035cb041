"""Options, configs and checkpoints that cannot work, or would mean something else than they say."""

import json
import multiprocessing
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from refusal import refusal
from small_benchmark import bench, write
from toy import toy_arguments, toy_corpus

from itmbench.cli.main import main
from itmbench.files import locked
from itmbench.runner.spec import merge

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
    "--model.protocol.shortlist=100": "--model.protocol: shortlist may mean captions or labels",
    "--trainer.strategy=fsdp": "trainer.strategy fsdp: splits weights, but not scalars",
    "--trainer.strategy=ModelParallelStrategy": "ModelParallelStrategy: splits weights, but not scalars",
    "--threads=0": "threads: 0; give 1 to 1024",
    "--threads=-2": "threads: -2; give 1 to 1024",
    "--threads=100000": "threads: 100000; give 1 to 1024",
    "--seed_everything=-1": "seed_everything: ",
    "--seed_everything=1000000000000": "seed_everything: ",
    "--trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches: 0 is too few",
    "--trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch: 0 is too few",
    "--trainer.gradient_clip_val=-1": "trainer.gradient_clip_val: -1 is too low",
    "--trainer.gradient_clip_val=.nan": "trainer.gradient_clip_val: nan is too low",
    "--trainer.max_time=yesterday": "trainer: `Timer(duration='yesterday')` is not a valid duration",
    "--trainer.max_time={mintes: 5}": "trainer: 'mintes' is an invalid keyword",
    "--trainer.profiler=nope": "trainer: ",
    "--trainer.reload_dataloaders_every_n_epochs=-3": "trainer: ",
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
    "--config=base_frozen.yaml": "base_frozen.yaml: no such file; did you mean configs/encoders/base_frozen.yaml? give",
    "--config=": "name a YAML file",
    "--best.mode=x": "`mode` can be min, max but got x",
    "--ckpt_path=nowhere.ckpt": "nowhere.ckpt: no such checkpoint",
    "--ckpt_path=": ": no such checkpoint",
    "--ckpt_path=.": ".: no such checkpoint",
    "--ckpt_path=best": "best: no such checkpoint",
    "--ckpt_path=hpc": "hpc: no such checkpoint",
    "--ckpt_path=a:b": "a:b: no such checkpoint",
    "--ckpt_path=http://127.0.0.1:9/x.ckpt": "http://127.0.0.1:9/x.ckpt: no such checkpoint",
    "--ckpt_path=s3://here/x.ckpt": "s3://here/x.ckpt: no such checkpoint",
    f"--model={'x' * 100_000}": "model: there is no xxx",
    "--model=lightning.LightningModule": "model",
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
    "a number that YAML takes for octal": ("seed_everything: 010", "config.yaml:1: not YAML (010 means 8 in YAML"),
    "a number that YAML takes for minutes": ("threads: 1:30", "config.yaml:1: not YAML (1:30 means 90 in YAML"),
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


LATE = {
    "--trainer.val_check_interval=1000": "trainer.val_check_interval: 1000, but an epoch has 12 batches",
    "--trainer.val_check_interval=0": "trainer.val_check_interval: 0, but an epoch has 12 batches",
    "--trainer.limit_train_batches=0.001": "trainer.limit_train_batches: 0.001 of 12 batches leaves none",
    "--trainer.limit_train_batches=0": "trainer.limit_train_batches: 0 of 12 batches leaves none",
    "--trainer.max_time=00:00:00:00": "trainer.max_time: leaves no time to train",
    "--trainer.max_time={minutes: -5}": "trainer.max_time: leaves no time to train",
    "--best.mode=min": "Checkpoint of val/objective: would take worse for better; set mode to max",
    "--best.monitor=train/loss": "Checkpoint of train/loss: would take worse for better; set mode to min",
    "--best.monitor=val/i2t/MedR": "Checkpoint of val/i2t/MedR: would take worse for better; set mode to min",
    '--trainer.callbacks={"class_path": "EarlyStopping", "init_args": {"monitor": "val/objective"}}': (
        "EarlyStopping of val/objective: would take worse for better; set mode to max"
    ),
    "--best.monitor=nope": "nope: no metric that a callback can monitor; give one of train/loss, ",
    "--best.monitor=val/nope": "val/nope: no metric",
    "--last.monitor=val/i2t/R@3": "val/i2t/R@3: no metric",
    '--trainer.callbacks={"class_path": "EarlyStopping", "init_args": {"monitor": "rSum"}}': "rSum: no metric",
    "--trainer.default_root_dir=FILE": "FILE/checkpoints: Not a directory",
    "--trainer.default_root_dir=FILE/below": "FILE/below/checkpoints: Not a directory",
    "--trainer.default_root_dir=/proc/x": "/proc/x: No such file or directory",
    f"--trainer.default_root_dir={'x' * 300}": "File name too long",
}


@pytest.mark.parametrize("option", LATE)
def test_options_that_would_fail_after_a_while(
    option: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    (run / "FILE").touch()
    other = f"--trainer.default_root_dir={run / 'other'}"
    line = refusal(["fit", *toy_arguments(run, "--trainer.logger=false", other), option], capsys, run)
    assert LATE[option] in line


def test_every_metric_of_validation_can_be_monitored(run: Path, tmp_path: Path) -> None:
    monitored = ["val/rSum", "val/chance/rSum", "val/i2t/MedR", "val/t2i/R@10", "val/objective", "train/loss"]
    modes = ["min" if name in ("train/loss", "val/i2t/MedR") else "max" for name in monitored]
    stop = [
        {"class_path": "EarlyStopping", "init_args": {"monitor": name, "mode": mode}}
        for name, mode in zip(monitored, modes, strict=True)
    ]
    short = ["--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}", "--best.monitor=val/rSum"]
    assert main(["fit", *toy_arguments(run, *short, f"--trainer.callbacks={json.dumps(stop)}")]) == 0


CELLS: dict[str, tuple[dict[str, Any], str]] = {
    "more time than there is": ({"trainer": {"max_time": "yesterday"}}, "trainer: `Timer(duration='yesterday')`"),
    "fewer epochs than none": ({"trainer": {"max_epochs": -5}}, "trainer: `max_epochs` must be a non-negative"),
    "epochs without end": ({"trainer": {"max_epochs": -1}}, "trainer.max_epochs -1: never ends; give a number"),
    "less than a batch": ({"trainer": {"limit_train_batches": 0.001}}, "trainer.limit_train_batches: 0.001 of 2"),
    "steps without batches": ({"trainer": {"accumulate_grad_batches": 0}}, "trainer.accumulate_grad_batches: 0 is too"),
    "an unknown accelerator": ({"trainer": {"accelerator": "abacus"}}, "trainer.accelerator: there is no abacus;"),
    "an unknown strategy": (
        {"trainer": {"strategy": "nope"}},
        "trainer.strategy: there is no nope; choose one of auto",
    ),
    "a device twice": ({"trainer": {"devices": [0, 0]}}, "trainer.devices [0, 0]: names a device twice"),
    "threads": ({"threads": 10**6}, "threads: 1000000; give 1 to 1024"),
    "the worst epoch": ({"best": {"mode": "min"}}, "best.mode min: leave it out; a benchmark tests the epoch that"),
    "no best epoch": ({"best": {"save_top_k": 0}}, "best.save_top_k 0: leave it out"),
    "another metric": ({"best": {"monitor": "train/loss"}}, "best.monitor train/loss: leave it out"),
    "nothing to resume from": ({"last": {"save_weights_only": True}}, "last.save_weights_only True: leave it out"),
    "a stop where it improves": (
        {"trainer": {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/objective"}}]}},
        "EarlyStopping of val/objective: would take worse for better; set mode to max",
    ),
}


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("case", CELLS)
def test_cells_that_would_fail_after_a_while(
    case: str, dry: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, named = CELLS[case]
    spec = write(tmp_path, "m", epochs=1)
    content = yaml.safe_load(spec.read_text())
    spec.write_text(yaml.safe_dump(content | {"config": merge(content["config"], change)}))
    toy_corpus(tmp_path / "toy")
    options = ["--dry-run"] if dry else []
    assert named in refusal(bench(spec, tmp_path / "results", *options), capsys, tmp_path)


SPECS = {
    "seeds: [010]": "small.yaml:1: not YAML (010 means 8 in YAML; write that, or '010' for text)",
    "overrides: [{method: m, config: {seed_everything: 5}}]": "overrides.0.config: has seed_everything; give seeds",
}


@pytest.mark.parametrize("line", SPECS)
def test_benchmarks_that_mean_something_else(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path, "m")
    content = yaml.safe_load(spec.read_text())
    del content["seeds"]
    spec.write_text(f"{line}\n{yaml.safe_dump(content)}")
    assert SPECS[line] in refusal(bench(spec, tmp_path / "results", "--dry-run"), capsys, tmp_path)


def test_a_file_that_is_no_benchmark_is_refused_in_few_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "truth.json").write_text(json.dumps({f"text{number}": ["image"] for number in range(3000)}))
    command = ["bench", str(tmp_path / "truth.json"), f"--results={tmp_path / 'results'}"]
    assert main(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21 and lines[-1] == "itmbench: and 2,982 more errors; correct these first"


def test_a_benchmark_without_a_number_of_epochs_is_forecast(tmp_path: Path) -> None:
    spec = write(tmp_path, "m", epochs=1)
    spec.write_text(spec.read_text().replace("max_epochs: 1", "max_epochs: null\n    max_steps: 3"))
    assert main(bench(spec, tmp_path / "results", "--dry-run")) == 0


@pytest.mark.parametrize("name", ["base.Matcher", "token_matcher.TokenMatcher", "identity.Identity"])
def test_methods_without_a_loss(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fit", "--data=toy.ToyData", f"--data.root={run / 'toy'}", f"--model=itmbench.methods.{name}"]
    line = refusal([*command, "--trainer.accelerator=cpu", f"--trainer.default_root_dir={run}"], capsys, run)
    assert "has no loss to train with; set self.loss or override training_loss in the class; if" in line


def test_a_method_that_returns_bare_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = "toy_failures.Unwrapped"
    assert main(["fit", *toy_arguments(tmp_path, "--trainer.logger=false", model=model)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "Unwrapped: embed, encode_image and encode_text must return Embeddings, not Tensor; for" in line
    refusal(["test", *toy_arguments(tmp_path, model=model)], capsys, tmp_path)


def test_a_run_that_is_refused_once_the_data_are_there_leaves_no_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_corpus(tmp_path / "toy")
    command = ["fit", "--model=MCRDGN", "--data=toy.ToyData", f"--data.root={tmp_path / 'toy'}"]
    command += ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    assert "has no labels, and MCRDGN needs labels" in refusal(command, capsys, tmp_path)


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    def damage(content: dict[str, Any]) -> dict[str, Any]:
        change(content)
        return content

    return damage


def weights(content: dict[str, Any]) -> list[tuple[str, torch.Tensor]]:
    return [(key, value) for key, value in content["state_dict"].items() if "_extra_state" not in key]


CHECKPOINTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list": (lambda content: [1, 2], "not a checkpoint but list"),
    "a tensor": (lambda content: torch.ones(3), "not a checkpoint but Tensor"),
    "an empty mapping": (lambda content: {}, "not a checkpoint but dict"),
    "weights alone": (lambda content: content["state_dict"], "not a checkpoint but"),
    "weights a number": (damaged(lambda c: c.update(state_dict=5)), "not a checkpoint but dict"),
    "no weights": (damaged(lambda c: c.update(state_dict={})), "does not fit"),
    "weights of NaN": (
        damaged(lambda c: [value.fill_(torch.nan) for value in c["state_dict"].values() if value.is_floating_point()]),
        "hold NaN or infinite numbers",
    ),
    "one infinite weight": (
        damaged(lambda c: next(v for v in c["state_dict"].values() if v.ndim == 2).view(-1)[:1].fill_(torch.inf)),
        "1 weights of the checkpoint hold NaN",
    ),
    "weights that are a list": (damaged(lambda c: c.update(state_dict=[1])), "not a checkpoint but dict"),
    "a weight that is a text": (
        damaged(lambda c: c["state_dict"].update({next(iter(c["state_dict"])): "x"})),
        "image.model.cls_token: no tensor",
    ),
    "a weight without a name": (damaged(lambda c: c["state_dict"].update({5: torch.ones(2)})), "state_dict.5"),
    "weights of whole numbers": (
        damaged(lambda c: c["state_dict"].update({k: v.int() for k, v in weights(c)})),
        "weights of the checkpoint are torch.int32",
    ),
    "weights of complex numbers": (
        damaged(lambda c: c["state_dict"].update({k: v.to(torch.complex64) for k, v in weights(c)})),
        "weights of the checkpoint are torch.complex64",
    ),
    "sparse weights": (
        damaged(lambda c: c["state_dict"].update({k: v.to_sparse() for k, v in weights(c) if v.ndim == 2})),
        "c.ckpt: not a checkpoint",
    ),
    "a tokenizer of noise": (
        damaged(lambda c: [v.fill_(7) for k, v in c["state_dict"].items() if k == "text._extra_state"]),
        "the tokenizer of the checkpoint is damaged",
    ),
    "no version": (damaged(lambda c: c.pop("pytorch-lightning_version")), "pytorch-lightning_version: Field required"),
    "a version that is none": (damaged(lambda c: c.update({"pytorch-lightning_version": "x"})), "Invalid version"),
    "a version that is a number": (damaged(lambda c: c.update({"pytorch-lightning_version": 5})), "valid string"),
    "callbacks a list": (damaged(lambda c: c.update(callbacks=[1])), "c.ckpt: damaged (callbacks: "),
    "callbacks of numbers": (damaged(lambda c: c.update(callbacks={"x": 5})), "c.ckpt: damaged (callbacks.x: "),
    "loops a number": (damaged(lambda c: c.update(loops=5)), "c.ckpt: damaged (loops: "),
    "no loop": (damaged(lambda c: c.update(loops={})), "c.ckpt: damaged (loops.fit_loop: "),
    "an epoch that is a text": (damaged(lambda c: c.update(epoch="x")), "c.ckpt: damaged (epoch: "),
    "options a number": (damaged(lambda c: c.update(hyper_parameters=5)), "c.ckpt: damaged (hyper_parameters: "),
    "arguments a number": (damaged(lambda c: c["hyper_parameters"].update(init_args=5)), "was trained with"),
    "state of the data a number": (damaged(lambda c: c.update(ToyData=5)), "ToyData: the checkpoint does not say"),
    "optimizers a number": (damaged(lambda c: c.update(optimizer_states=5)), "c.ckpt: damaged (optimizer_states: "),
    "an empty optimizer": (damaged(lambda c: c.update(optimizer_states=[{}])), "damaged (optimizer_states.0.state: "),
    "schedules a number": (damaged(lambda c: c.update(lr_schedulers=5)), "c.ckpt: damaged (lr_schedulers: "),
    "a weight too many": (damaged(lambda c: c["state_dict"].update(more=torch.ones(2))), "does not fit"),
    "other options": (
        damaged(lambda c: c["hyper_parameters"]["init_args"].update(dim=99)),
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


NOT_RESUMED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another seed, from a later version": (damaged(lambda c: c["training"].update(more=1, seed=9)), "seed 9, not 0"),
    "weights alone": (damaged(lambda c: [c.pop(k) for k in ("optimizer_states", "loops")]), "no optimizer_states, no"),
    "more epochs than are wanted": (
        damaged(lambda c: c.update(epoch=20)),
        "has trained 21 epochs, more than train",
    ),
    "optimizers too many": (damaged(lambda c: c["optimizer_states"].append(c["optimizer_states"][0])), "2 optimizers"),
    "no optimizer": (damaged(lambda c: c.update(optimizer_states=[])), "0 optimizers, not 1"),
    "groups too many": (damaged(lambda c: groups(c).append({"params": []})), "groups of ["),
    "a group of other parameters": (damaged(lambda c: groups(c)[0]["params"].pop()), "groups of ["),
    "a group without parameters": (damaged(lambda c: groups(c)[0].pop("params")), "groups of ["),
    "another learning rate": (damaged(lambda c: groups(c)[0].update(initial_lr=0.5)), ": lr 0.5, not 0.003"),
    "another weight decay": (damaged(lambda c: groups(c)[0].update(weight_decay=9)), ": weight_decay 9, not "),
    "averages of another shape": (
        damaged(lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.ones(7, 7))),
        "exp_avg of shape [7, 7] for a parameter of shape",
    ),
    "the state of a parameter that is none": (
        damaged(lambda c: c["optimizer_states"][0]["state"].update({999: {}})),
        "a state for parameter 999, which does not exist",
    ),
    "a state that is a number": (damaged(lambda c: c["optimizer_states"][0]["state"].update({0: 5})), "parameter 0"),
    "no schedule": (damaged(lambda c: c.update(lr_schedulers=[])), "0 learning rate schedules, not 1"),
    "an empty schedule": (damaged(lambda c: c.update(lr_schedulers=[{}])), "schedule whose base_lrs is None"),
    "a schedule of two groups": (damaged(lambda c: c["lr_schedulers"][0]["base_lrs"].append(1.0)), "base_lrs is ["),
}


def groups(content: dict[str, Any]) -> list[dict[str, Any]]:
    return content["optimizer_states"][0]["param_groups"]


@pytest.mark.parametrize("case", NOT_RESUMED)
def test_checkpoints_to_resume_from(case: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, named = NOT_RESUMED[case]
    torch.save(change(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)), tmp_path / "c.ckpt")
    options = ["--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={tmp_path / 'c.ckpt'}"]
    assert named in refusal(["fit", *toy_arguments(run, *options)], capsys, tmp_path)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--model.lr=0.5", "not 0.5"),
        ("--model.weight_decay=0.5", "not 0.5"),
        ("--data.copies=5", "data of the fingerprint "),
        ("--model.protocol.cutoffs=[5]", "validation by rSum, not mAP"),
        ("--seed_everything=7", "seed 0, not 7"),
        ("--data.batch_size=2", "pairs in a step 16, not 2"),
        ("--trainer.limit_train_batches=1", "limit_train_batches 1.0, not 1"),
    ],
)
def test_a_training_does_not_resume_as_another_training(
    option: str, named: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    options = ["--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}", resume, option]
    line = refusal(["fit", *toy_arguments(run, *options)], capsys, tmp_path)
    assert named in line and "; resume with the options" in line


def test_a_training_resumes_in_another_folder_and_says_where_its_best_checkpoint_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    options = ["--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=1", resume]
    assert main(["fit", *toy_arguments(run, *options)]) == 0
    assert f"  itmbench test {tmp_path / 'checkpoints'}\n" in capsys.readouterr().out
    best, copy = (folder / "checkpoints" / "best.ckpt" for folder in (run, tmp_path))
    assert copy.read_bytes() == best.read_bytes()


def test_a_training_does_not_resume_in_the_folder_of_another_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Path(shutil.copytree(run / "checkpoints", tmp_path / "checkpoints"))
    before = {path: path.read_bytes() for path in checkpoints.iterdir()}
    options = ["--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=1"]
    command = ["fit", *toy_arguments(run, *options, f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}")]
    assert "DIR/checkpoints/config.yaml: belongs to another run" in refusal(command, capsys, tmp_path)
    assert {path: path.read_bytes() for path in checkpoints.iterdir()} == before
    (tmp_path / "link").symlink_to(checkpoints)
    assert main([*command[:-1], f"--ckpt_path={tmp_path / 'link' / 'last.ckpt'}"]) == 0


class Intruder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("strategy", ["auto", "fsdp", "ddp"])
@pytest.mark.parametrize("command", ["fit", "test"])
def test_folders_of_sharded_weights_are_not_unpickled(
    command: str, strategy: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sharded").mkdir()
    (tmp_path / "sharded" / ".metadata").write_bytes(pickle.dumps(Intruder(tmp_path / "trace")))
    options = [f"--trainer.strategy={strategy}", f"--trainer.default_root_dir={tmp_path}"]
    line = refusal([command, *toy_arguments(run, *options, f"--ckpt_path={tmp_path / 'sharded'}")], capsys, tmp_path)
    assert "DIR/sharded: no such checkpoint" in line and not (tmp_path / "trace").exists()


def test_a_full_disk_is_said_to_be_full(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    options = ["--trainer.logger=false", "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        status = main(["fit", *toy_arguments(run, *options)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err.splitlines()[-1]
    assert status == 1 and said.startswith(f"itmbench: {tmp_path}/checkpoints/best.ckpt: File too large")
    assert {path.name for path in tmp_path.rglob("*")} == {"checkpoints", "config.yaml", ".lock"}


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


def test_a_run_is_not_shared_by_two_processes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = run / "checkpoints"
    before = {path: path.read_bytes() for path in checkpoints.iterdir()}
    here, there = multiprocessing.get_context("fork").Pipe()

    def train() -> None:
        with locked(checkpoints):
            there.send("training")
            there.recv()

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    assert here.recv() == "training"
    command = ["fit", *toy_arguments(run, "--trainer.logger=false", f"--ckpt_path={checkpoints / 'last.ckpt'}")]
    assert "DIR/checkpoints: another process trains here" in refusal(command, capsys, run)
    here.send("end")
    process.join()
    assert {path: path.read_bytes() for path in before} == before
