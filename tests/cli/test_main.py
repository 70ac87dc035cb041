"""The command line as users meet it: help, LightningCLI's commands end to end, and one line for every wrong input."""

import contextlib
import gc
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from toy import toy_arguments

from itmbench.cli.arguments import imports
from itmbench.cli.fit import OPTIONS
from itmbench.cli.main import COMMANDS, main
from itmbench.runner import registry


def helped(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """What a command prints before it ends with code 0, by returning or through argparse."""
    with contextlib.suppress(SystemExit):
        assert main(command) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys, command, "--help")
    assert len(text.splitlines()) < 60
    assert f"\n  itmbench {command} " in text.partition("example:")[2] or command == "list"
    assert f"  {command} " in helped(capsys, "--help")


@pytest.mark.parametrize("command", ["validate", "test", "predict", "audit", "explain"])
def test_help_on_a_trained_run_is_about_its_folder(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys, command, "--help")
    assert f"usage: itmbench {command} RUN" in text and "--model.lr" not in text and "--ckpt_path FILE" in text


def test_list_has_columns_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "``" not in printed
    for block in re.split(r"^\w+:\n", printed, flags=re.MULTILINE)[1:]:
        rows = [line for line in block.splitlines() if line.startswith("  ")]
        starts = [re.match(r"  \S+ +", row) for row in rows]
        assert len({start.end() for start in starts if start}) == 1 and all(starts)


def test_every_option_in_the_help_of_fit_is_one_that_fit_takes(capsys: pytest.CaptureFixture[str]) -> None:
    given = dict(re.findall(r"(--[a-z_.]+) ([\w./-]+)", OPTIONS)) | {"--trainer.logger.project": "p"}
    assert {"--model.lr", "--model.image.image_size", "--model.loss", "--trainer.logger", "--model.image"} <= {*given}
    assert given.pop("--config") == given.pop("--ckpt_path") == "FILE"
    given["--data"] = "KarpathyCaptions"
    options = [word for option in given.items() for word in option]
    config = yaml.safe_load(helped(capsys, "fit", *options, "--print_config"))
    for option, value in given.items():
        entry = config
        for key in option.removeprefix("--").split("."):
            entry = entry.get("init_args", entry)[key]
        shown = entry["class_path"].rpartition(".")[2] if isinstance(entry, dict) else entry
        assert shown == yaml.safe_load(value) or float(shown) == float(value), option


def test_the_full_help_and_that_of_a_method_are_a_call_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--trainer.accumulate_grad_batches" in helped(capsys, "fit", "--help-all")
    assert "--model.lr LR" in helped(capsys, "fit", "--model.help", "SEDRA")


def test_print_config_shows_the_defaults_that_will_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = ["--data=toy.ToyData", f"--data.root={tmp_path / 'toy'}", "--trainer.accelerator=cpu"]
    for method, loss in (("VSE", "TripletLoss"), ("SEDRA", "InfoNCE"), ("CCA", None)):
        printed = helped(capsys, "fit", f"--model={method}", *toy, "--print_config")
        options = yaml.safe_load(printed)["model"]["init_args"]
        encoder = options["image"]["class_path"].rpartition(".")[2]
        assert encoder == ("FeatureEncoder" if method == "CCA" else "TimmImageEncoder")
        assert loss is None or options["loss"]["class_path"].endswith(loss)
    assert options["text"]["init_args"]["width"] == 1024

    (tmp_path / "config.yaml").write_text(helped(capsys, "fit", "--model=VSE", *toy, "--print_config"))
    weights: list[dict[str, torch.Tensor]] = []
    for command in (["--model=VSE", *toy], [f"--config={tmp_path / 'config.yaml'}"]):
        folder = tmp_path / str(len(weights))
        kept = [f"--best.dirpath={folder}", f"--last.dirpath={folder}", f"--trainer.default_root_dir={folder}"]
        assert main(["fit", *command, *kept, "--trainer.max_steps=1", "--trainer.logger=false"]) == 0
        weights.append(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items() if "extra" not in name)


def test_fit_then_test_then_predict_from_the_saved_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *toy_arguments(tmp_path)]) == 0
    output, error = capsys.readouterr()
    best = re.search("best rSum on validation ([0-9.]+)", output)
    assert best and f"val/rSum {best[1]} (16 images)  " in error and "FLOPs" not in output
    assert "both encoders learn from scratch, from 96 images at 32 px; for pretrained ones" in error
    hint = next(line for line in output.splitlines() if "itmbench test " in line).split()
    [run] = map(Path, hint[2:])
    checkpoint = run / "checkpoints" / "best.ckpt"
    torch.load(checkpoint, weights_only=True)

    options = ["--config", str(run / "config.yaml"), "--ckpt_path", str(checkpoint)]
    printed = []
    for command in (hint[1:], ["test", str(checkpoint)], ["test", *options]):
        assert main(command) == 0
        printed.append(capsys.readouterr().out)
    assert [folder.name for folder in run.parent.iterdir()] == ["version_0"]  # a test keeps no log by itself
    assert main([*hint[1:], "--trainer.logger=true"]) == 0
    assert {folder.name for folder in run.parent.iterdir()} == {"version_0", "version_1"}
    capsys.readouterr()
    table = printed[0]
    assert table == printed[1] == printed[2]
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.startswith("  ")}
    assert table.startswith("toy, test: caption-retrieval, version 2")
    assert lines["i2t/R@1"][1:] == ["%", "random", "chance", "6.25", "%"]
    assert float(lines["rSum"][0]) > 400  # 16 pictures of 16 kinds; random chance is about 190

    assert main(["predict", *hint[2:], "--embeddings.folder=vectors"]) == 0
    images, texts, owner = (np.load(tmp_path / "vectors" / f"{n}.npy") for n in ("images", "texts", "text_to_image"))
    assert images.shape == (16, 32) and texts.shape == (32, 32)
    assert ((images @ texts.T).argmax(0) == owner).mean() > 0.5
    assert (tmp_path / "vectors" / "text_ids.txt").read_text().split()[:2] == ["t224", "t225"]


def test_fit_resumes_from_the_last_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [f"--{which}.dirpath={tmp_path / 'kept'}" for which in ("best", "last")]
    last = tmp_path / "kept" / "last.ckpt"
    # A rate of 0 never improves, so the best stays the first; the last must still move on.
    command = ["fit", *toy_arguments(tmp_path, *kept, "--model.lr=1e-30")]
    assert main([*command, "--trainer.max_epochs=2"]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 24
    assert main([*command, "--trainer.max_epochs=3", f"--ckpt_path={last}"]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 36
    # The folder of a new run holds the best of the run that it resumes.
    command = ["fit", *toy_arguments(tmp_path, "--model.lr=1e-30", "--trainer.max_epochs=4", f"--ckpt_path={last}")]
    assert main(command) == 0
    run = Path(capsys.readouterr().out.split()[-1])
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == last.with_name("best.ckpt").read_bytes()
    assert main(["validate", str(run)]) == 0


@pytest.mark.parametrize("limit", ["max_epochs=4", "max_steps=7"])
@pytest.mark.parametrize("validation", ["check_val_every_n_epoch=1", "check_val_every_n_epoch=2"])
def test_a_resumed_training_is_that_of_an_unbroken_one(limit: str, validation: str, tmp_path: Path) -> None:
    def train(folder: str, *more: str) -> dict[str, Any]:
        options = [
            f"--data.root={tmp_path / 'toy'}",
            f"--trainer.{limit}",
            f"--trainer.{validation}",
            "--data.copies=1",
        ]
        every = [
            "--last.save_top_k=-1",
            "--last.filename={epoch}",
            "--model.text.dropout=0.2",
            "--trainer.logger=false",
        ]
        assert main(["fit", *toy_arguments(tmp_path / folder, *options, *every, *more)]) == 0
        last = torch.load(tmp_path / folder / "checkpoints" / "epoch=3.ckpt", weights_only=True)
        weights = {name: value.tolist() for name, value in last["state_dict"].items()}
        return weights | {"progress": last["loops"]["fit_loop"]["epoch_progress"], "step": last["global_step"]}

    unbroken = train("unbroken")
    for epoch in (0, 1):
        assert (
            train(f"after {epoch}", f"--ckpt_path={tmp_path / 'unbroken' / 'checkpoints' / f'epoch={epoch}.ckpt'}")
            == unbroken
        )


def test_only_commands_that_resume_say_so_when_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for target in ("toy.ToyData.read", "itmbench.runner.run.cells_to_run", "itmbench.report.tables.load"):
        monkeypatch.setattr(target, interrupt)
    expected = {
        "fit": "interrupted; once an epoch is finished: resume with --ckpt_path RUN/checkpoints/last.ckpt",
        "test": "interrupted",
        "bench": "interrupted; the same command resumes and keeps every finished epoch",
        "report": "interrupted",
    }
    for command, message in expected.items():
        options = {"bench": ["mini", "--results", str(tmp_path)], "report": []}.get(command, toy_arguments(tmp_path))
        assert main([command, *options]) == 1
        assert capsys.readouterr().err.splitlines()[-1] == f"itmbench: {message}"


def test_audit_prints_a_line_a_check_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *toy_arguments(tmp_path)]) == 0
    title, *lines = capsys.readouterr().out.splitlines()[-11:]
    assert title == "toy, audit of DualEncoder: 16 images, 32 texts"
    checks = ("alone", "pairs", "frozen", "protocol", "subset", "blind", "replay", "random", "constant", "blind fit")
    assert [re.match(r"  (.+?) +pass ", line)[1] for line in lines] == list(checks)  # type: ignore[index]
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_audit_of_a_leaky_checkpoint_ends_with_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaky = toy_arguments(tmp_path, model="toy_leaks.Counting")
    best = f"--best.dirpath={tmp_path}"
    assert main(["fit", *leaky, best, "--trainer.max_epochs=1", "--data.copies=1"]) == 0
    capsys.readouterr()
    assert main(["audit", *leaky, f"--ckpt_path={tmp_path / 'best.ckpt'}", "--images=8"]) == 1
    title, *lines = capsys.readouterr().out.splitlines()[-11:]
    assert title == "toy, audit of Counting: 8 images, 16 texts"
    assert [line.split()[0] for line in lines if "FAIL" in line] == ["frozen"]


def test_audit_replays_in_a_process_without_what_a_test_left_outside_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *toy_arguments(tmp_path, model="toy_statistics.KeptByTheClass")]) == 1
    lines = capsys.readouterr().out.splitlines()[-10:]
    assert [line.split()[0] for line in lines if "FAIL" in line] == ["replay"]


MINI = "--data MirFlickrMini"
SEDRA = registry.benchmarks_folder() / "configs" / "methods" / "sedra.yaml"
WRONG = {
    "benhc": "benhc: no such command; did you mean bench? choose one of bench, tune, fit, ",
    "bench": "bench: the following arguments are required: NAME|FILE; see itmbench bench --help",
    "fit": "fit: the following arguments are required: --model and --data; see itmbench fit --help",
    "test": "test: the following arguments are required: RUN; see itmbench test --help",
    "explain": "explain: the following arguments are required: RUN; see itmbench explain --help",
    "bench mini --device 2": "bench: unrecognized arguments: --device 2; did you mean --devices? see itmbench ",
    "bench mni": "mni: no such file or benchmark; did you mean mini? choose one of ablations/mcr_dgn, ",
    "bench nowhere": "nowhere: no such file or benchmark; choose one of ablations/mcr_dgn, ",
    "tune captions --trials 0": "--trials 0: give 1 or more",
    "results": "results: the following arguments are required: ACTION; see itmbench results --help",
    "report --out=": "report: argument --out: names nothing; give a path; see itmbench report --help",
    "search --model=X --gallery=X dog --out=": "search: argument --out: names nothing; ",
    "results list --result=nowhere": "results: unrecognized arguments: --result=nowhere; did you mean --results? see ",
    "data verify flickr8k --rot=nowhere --root=x": "data verify flickr8k: unrecognized arguments: "
    "--rot=nowhere; did you mean --root? see itmbench data verify flickr8k --help",
    "data verify flickr8k --root=nowhere --dee": "data verify flickr8k: unrecognized arguments: --dee; did you mean ",
    "report --results nowhere": "nowhere: no such results folder",
    "data verify nothing": "nothing: no such dataset; choose one of flickr30k, flickr8k, coco, ",
    "data prepare Flickr30k": "Flickr30k: no such dataset; did you mean flickr30k? ",
    "data verify captions": "data verify captions: the following arguments are required: --root; see itmbench data ver",
    "data verify mirflickr25k --root /nowhere/nuswide": "/nowhere/nuswide: no such folder; give that of the "
    "dataset, or get it by `itmbench data prepare nuswide --root /nowhere/nuswide`",
    "data verify nuswide --root /nowhere": "/nowhere: no such folder; give that of the dataset, or get it by `itmbench "
    "data prepare`",
    "fit --model DualEncoder --data KarpathyCaptions --data.root nowhere --trainer.accelerator cpu": "",
    f"audit --model DualEncoder {MINI} --ckpt_path nowhere.ckpt": "nowhere.ckpt: no such checkpoint",
    f"test --model DualEncoder {MINI} --ckpt_path best": "best: no such checkpoint",
    f"test --model DualEncoder {MINI} --ckpt_path .": ".: no such checkpoint",
    f"fit {MINI} --model SEDRAA": "model: there is no SEDRAA; did you mean SEDRA? choose one of CCA, CLIP, ",
    f"fit {MINI} --model SEDRA --model.dimm 3": "model: SEDRA: Option 'dimm' is not accepted; did you mean dim? see "
    "itmbench fit --model.help SEDRA",
    f"fit {MINI} --model SEDRA --model.learning_rate 1": "model: SEDRA: Option 'learning_rate' is not accepted; "
    "did you mean lr? see ",
    f"fit {MINI} --model SEDRA --learning_rate 1": "fit: unrecognized arguments: --learning_rate 1; did you mean "
    "--model.lr? see itmbench fit --help, or --model.help CLASS",
    f"fit {MINI} --model SEDRA --max-epochs 1": "fit: unrecognized arguments: --max-epochs 1; did you mean "
    "--trainer.max_epochs? ",
    f"fit {MINI} --model SEDRA --trainer.max_epoch 1": "fit: unrecognized arguments: --trainer.max_epoch 1; did you "
    "mean --trainer.max_epochs? ",
    f"audit {MINI} --model SEDRA --trainer.accel cpu": "audit: unrecognized arguments: --trainer.accel cpu; did you "
    "mean --trainer.accelerator? see itmbench audit --help",
    f"explain {MINI} --model SEDRA --cout 2": "explain: unrecognized arguments: --cout 2; did you mean "
    "--count or --out? see itmbench explain --help",
    f"fit {MINI} --config {SEDRA} --cout 2": "fit: unrecognized arguments: --cout 2; see itmbench fit ",
    f"explain {MINI}": "explain: the following arguments are required: --model; see itmbench explain --help",
    f"fit {MINI} --model SEDRA --seed 1": "fit: unrecognized arguments: --seed 1; did you mean --seed_everything? ",
    f"fit {MINI} --model SEDRA --trainer.zzz 1": "fit: unrecognized arguments: --trainer.zzz 1; see itmbench fit ",
    f"fit {MINI}": "fit: the following arguments are required: --model; see itmbench fit --help",
    "test --seed_everything=1 RUN": "test: unrecognized arguments: RUN; see itmbench test --help; a trained model "
    "comes first, ",
    f"fit {MINI} --model SEDRA --model.dim abc": "model.dim: expected int, got abc",
    f"fit {MINI} --model SEDRA --model.loss Info": "model.loss: there is no Info; did you mean InfoNCE? choose "
    "one of InfoNCE, TripletLoss, ",
    f"fit {MINI} --model SEDRA --data Foo": "data: there is no Foo; choose one of KarpathyCaptions, ",
    f"fit {MINI} --model no_module.X": "model: there is no module no_module; give module.Class of an installed ",
    f"fit {MINI} --model itmbnch.X": "model: there is no module itmbnch; did you mean itmbench? give module.Class of ",
    f"fit {MINI} --model itmbench.methods.scn.SCAN": "model: itmbench.methods has no scn; did you mean scan? give ",
    f"fit {MINI} --model toy.ToyDat": "model: toy has no ToyDat; did you mean ToyData? give module.Class of ",
    f"fit {MINI} --model toy.ToyData": "model: toy.ToyData is not derived from Matcher; give a class that is",
    f"fit {MINI} --model SEDRA --model.loss toy.ToyData": "model.loss: toy.ToyData is not derived from InfoNCE or ",
    f"fit {MINI} --model SEDRA --model.image TimmImage": "model.image: there is no TimmImage; did you mean "
    "TimmImageEncoder? choose one of FeatureEncoder, ",
    f"fit {MINI} --model vse_max": "model: vse_max is no class, but there is a config of it; give --config /",
    f"fit {MINI} --model SEDRA --data Flickr30K": "data: Flickr30K is no class, but there is a config of it; give ",
    f"fit {MINI} --model SEDRA --trainer.max_epochs x": "trainer.max_epochs: expected int, got x",
    f"fit {MINI} --model SEDRA --trainer.devices 0": "trainer: ",
    f"fit {MINI} --model SEDRA --data.batch_size 0": "data.batch_size: 0 is too few; give 1 or more",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_input_is_one_short_line_and_exit_code_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line for line in lines if line.startswith("itmbench: ")] == lines[-1:]
    assert lines[-1].startswith(f"itmbench: {WRONG[command]}") and len(lines[-1]) < 600
    assert WRONG[command] or "nowhere: no such folder; give" in lines[-1]
    assert "Traceback" not in "".join(lines)


def test_an_unreadable_image_in_a_loader_process_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *toy_arguments(tmp_path, "--trainer.max_epochs=1")]) == 0
    command = ["fit", *toy_arguments(tmp_path, "--trainer.max_epochs=1", "--data.num_workers=1")]
    command[command.index("--data=toy.ToyData")] = "--data=toy_failures.BrokenToyData"
    assert main(command) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("itmbench: ") and "0.png: not a readable image" in last and "replace the file" in last


def test_a_reader_that_stops_early_is_no_error() -> None:
    for unbuffered in ("-u", ""):
        command = f"{sys.executable} {unbuffered} -m itmbench list | head -1"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "methods:\n", "")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("audit --images 1", "--images 1: give 2 or more"),
        ("predict --embeddings.folder FILE/below", "--embeddings.folder "),
    ],
)
def test_what_could_only_fail_at_the_end_is_told_at_the_start(
    command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    name, *rest = command.split()
    assert main([name, *toy_arguments(tmp_path), *rest]) == 2
    error = capsys.readouterr().err
    assert ("no --ckpt_path: predict takes the model as it is built, untrained" in error) == (name == "predict")
    assert error.splitlines()[-1].startswith(f"itmbench: {message}")


def test_the_program_ends_with_the_status_and_after_every_handler() -> None:
    code = (
        "import atexit, sys\nfrom itmbench.cli import arguments, main\n"
        "def run():\n"
        "    with arguments.imports():\n        pass\n"
        "    atexit.register(print, 'a handler')\n    return 3\n"
        "class Lasting:\n    def __del__(self): print('taken apart')\n"
        "main.main, main.lasting = run, Lasting()\n"
        "main.program()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "a handler\n", "")


def test_imports_are_not_collected_and_later_objects_are() -> None:
    with imports():
        assert not gc.isenabled()
    try:
        assert gc.isenabled() and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
