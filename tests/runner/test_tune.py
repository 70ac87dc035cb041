"""Tuning: as many trials for every method, on validation only, the same whoever runs them and however often."""

import errno
import json
import os
import re
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import optuna
import pandas as pd
import pytest
import torch
import yaml
from optuna.distributions import BaseDistribution, FloatDistribution
from own_features import write_features
from small_benchmark import bench, ended, kill_in, start, write

import itmbench
from itmbench import logs
from itmbench.cli.main import main
from itmbench.errors import InputError
from itmbench.methods.trained import Trained
from itmbench.runner.plan import Planner
from itmbench.runner.spec import load_cells
from itmbench.runner.tune import plan, propose, tune
from itmbench.runner.tuned import Tuned

LR, LOSS = "model.init_args.lr", "model.init_args.loss"
SPACE: dict[str, Any] = {
    "shared": {LR: {"low": "1e-3", "high": 3e-2, "log": True}},
    "methods": {"b": {LOSS: [{"class_path": "InfoNCE"}, {"class_path": "TripletLoss", "init_args": {"margin": 0.1}}]}},
}


@pytest.fixture(autouse=True)
def _progress() -> None:
    """Calls from Python show progress only where it was asked for."""
    logs.configure()


def spec_of(folder: Path, *methods: str, tune: Any = SPACE, failing: Any = None, **changes: Any) -> Path:
    """A benchmark of two epochs with a tune block."""
    folder.mkdir(exist_ok=True)
    path = write(folder, *methods, epochs=2, **(failing or {}))
    if tune is SPACE:
        tune = tune | {"methods": {name: knobs for name, knobs in tune["methods"].items() if name in methods}}
    content = yaml.safe_load(path.read_text()) | {"tune": tune} | changes
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def command(spec: Path, results: Path, *options: str) -> list[str]:
    return ["tune", str(spec), "--results", str(results), "--trials", "3", *options]


def table(results: Path, method: str) -> pd.DataFrame:
    return pd.read_csv(results / "tuned" / "toy" / f"{method}.csv")


def content(results: Path) -> dict[str, Any]:
    """What a search leaves, without times."""
    files = {path.name: path for path in (results / "tuned" / "toy").iterdir() if path.suffix in (".yaml", ".csv")}
    tables = {name: pd.read_csv(path).drop(columns="minutes") for name, path in files.items() if path.suffix == ".csv"}
    choices = {name: path.read_text() for name, path in files.items() if path.suffix == ".yaml"}
    choices = {name: re.sub("table: .*", "", text) for name, text in choices.items()}  # of a table with times
    return choices | {name: each.to_csv() for name, each in tables.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tuned benchmark of two methods and its results; nothing in it may test."""
    folder = tmp_path_factory.mktemp("tuned")
    spec = spec_of(folder, "a", "b")

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the test data were looked at")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L.Trainer, "test", refuse)
        patch.setattr(Trained, "on_test_epoch_end", refuse, raising=False)
        assert main(command(spec, folder / "results")) == 0
    return spec, folder / "results"


def test_every_method_has_the_same_trials_and_the_first_is_its_own_config(
    whole: tuple[Path, Path], tmp_path: Path
) -> None:
    results = whole[1]
    # A benchmark with the seed of the trials is another way to the same numbers.
    reference = spec_of(tmp_path, "a", "b", tune=None, seeds=[1000])
    assert main(bench(reference, tmp_path / "results")) == 0
    own = itmbench.load_results(tmp_path / "results").set_index("method")["validation"]
    for method, knobs in (("a", [LR]), ("b", [LR, LOSS])):
        trials = table(results, method)
        assert list(trials["trial"]) == [0, 1, 2] and trials["error"].isna().all()
        assert trials["objective"][0] == own[method]
        assert [str(column) for column in trials if "model" in str(column)] == knobs
        assert all(trials[knob][0] == "its own" for knob in knobs) and trials[LR].nunique() == 3
        chosen = yaml.safe_load((results / "tuned" / "toy" / f"{method}.yaml").read_text())
        best = trials["objective"].tolist().index(trials["objective"].max())  # the first of equals
        assert (chosen["trials"], chosen["chosen"], chosen["objective"]) == (3, best, trials["objective"][best])
        arguments = chosen["config"].get("model", {}).get("init_args", {})
        assert best == 0 or arguments["lr"] == float(str(trials[LR][best]))
    assert json.loads(table(results, "b")[LOSS][1])["class_path"] in ("InfoNCE", "TripletLoss")
    assert sorted(path.suffix for path in results.rglob("*") if path.is_file()) == sorted(
        [".csv", ".db", ".yaml"] * 2 + [".json"]  # the plan; no result and no checkpoint
    )


def test_the_trials_are_in_optunas_storage(whole: tuple[Path, Path]) -> None:
    storage = f"sqlite:///{whole[1] / 'tuned' / 'toy' / 'b.db'}"
    [name] = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    assert [trial.value for trial in trials] == list(table(whole[1], "b")["objective"])
    assert trials[0].params == {} and 1e-3 <= trials[1].params[LR] <= 3e-2


def test_two_workers_and_another_order_choose_the_same(whole: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(command(spec_of(tmp_path, "b", "a"), tmp_path / "results", "--devices", "2")) == 0
    assert content(tmp_path / "results") == content(whole[1])


def test_another_seed_is_another_search(whole: tuple[Path, Path], tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "a", tune=SPACE | {"methods": {}, "seed": 7})
    assert main(command(spec, tmp_path / "results")) == 0
    assert list(table(tmp_path / "results", "a")[LR])[1:] != list(table(whole[1], "a")[LR])[1:]


def terminate(where: Any, name: str) -> None:
    """Replace a function by one that sends SIGTERM to its process first."""
    real = getattr(where, name)

    def replaced(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    setattr(where, name, replaced)


@pytest.mark.parametrize(
    ("before", "status", "epochs"),
    [
        (lambda: kill_in(torch, "save", 7, True), -signal.SIGKILL, 3),  # in the second epoch of trial 1
        (lambda: kill_in(optuna.Study, "add_trial", 3, False), -signal.SIGKILL, 2),  # the second is the sampler's
        (lambda: kill_in(optuna.Study, "add_trial", 3, True), -signal.SIGKILL, 2),
        (lambda: terminate(Tuned, "save"), 1, 0),
    ],
)
def test_interrupted_it_resumes_and_chooses_the_same(
    whole: tuple[Path, Path], tmp_path: Path, before: Any, status: int, epochs: int
) -> None:
    spec, words = spec_of(tmp_path, "a"), command(tmp_path / "small.yaml", tmp_path / "results")
    assert ended(start(words, tmp_path / "log", before)) == status
    printed = (tmp_path / "log").read_text()
    assert not list((tmp_path / "results" / "tuned").rglob("*.yaml"))
    assert spec.exists() and ended(start(words, tmp_path / "log")) == 0
    assert (tmp_path / "log").read_text().removeprefix(printed).count("    epoch ") == epochs
    expected = {name: text for name, text in content(whole[1]).items() if name.startswith("a.")}
    assert content(tmp_path / "results") == expected


def test_a_tuned_benchmark_uses_the_choice_and_says_how_many_trials_it_had(
    whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = whole[1]
    tuned = spec_of(tmp_path, "a", "b", tuned=True)
    assert main(bench(tuned, tmp_path / "none")) == 2
    line = capsys.readouterr().err
    assert f"no chosen options of a on toy, b on toy; run `itmbench tune {tuned} " in line and line.count("\n") == 1
    other = spec_of(tmp_path / "without", "a", tuned=True, tune=None)
    assert main(bench(other, tmp_path / "none")) == 2  # and `itmbench tune` refuses this file
    assert "run `itmbench tune FILE --results" in (line := capsys.readouterr().err) and line.count("\n") == 1
    assert main(bench(Path("flickr8k"), tmp_path / "none")) == 2  # another packaged file tunes its pairs
    assert f"run `itmbench tune flickr8k_short --results {tmp_path / 'none'}` first" in capsys.readouterr().err
    (results / "tuned" / "toy" / "a.yaml").rename(tmp_path / "kept.yaml")
    assert main(bench(tuned, results, "--only", "method=b")) == 0
    (tmp_path / "kept.yaml").rename(results / "tuned" / "toy" / "a.yaml")
    row = itmbench.load_results(results).iloc[0]
    config = yaml.safe_load((Path(row["folder"]) / "config.yaml").read_text())
    chosen = yaml.safe_load((results / "tuned" / "toy" / "b.yaml").read_text())
    assert row["trials"] == 3
    assert chosen["chosen"] > 0  # or it would not show whether the options are used
    assert config["model"]["init_args"]["lr"] == chosen["config"]["model"]["init_args"]["lr"]
    # The same options found by more trials are another result; no options, one without trials.
    key = itmbench.store.Result.load(Path(row["folder"])).key
    keys = set()
    for trials in (2, 3):
        Tuned(**(chosen | {"trials": trials})).save(load_cells(tuned, "method=b")[0], results)
        capsys.readouterr()
        assert main([*bench(tuned, results, "--only", "method=b"), "--dry-run"]) == 0
        keys.add(capsys.readouterr().out.split()[1])
    assert key in keys and len(keys) == 2


def test_a_method_without_options_has_its_trials_at_no_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits, fit = [], L.Trainer.fit

    def count(*arguments: Any, **options: Any) -> None:
        fits.append(arguments)
        fit(*arguments, **options)

    monkeypatch.setattr(L.Trainer, "fit", count)
    spec = spec_of(tmp_path, "a", tune=SPACE | {"methods": {"a": {LR: None}}})
    assert main(command(spec, tmp_path / "results")) == 0
    assert len(fits) == 1
    assert len(table(tmp_path / "results", "a")) == 3 and table(tmp_path / "results", "a")["objective"].nunique() == 1


def test_failed_trials_count_and_the_rest_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").touch()
    where = [str(tmp_path / "there"), str(tmp_path / "gone")]
    failing = {"a": {"while_there": where[1], "how": "nan"}}
    knobs = {"shared": {"model.init_args.while_there": where, LR: [0.001, 0.002, 0.004]}}
    spec = spec_of(tmp_path, "a", tune=knobs, failing=failing)
    assert main([*command(spec, tmp_path / "results"), "--trials", "6"]) == 0
    trials = table(tmp_path / "results", "a")
    diverged = trials["model.init_args.while_there"] == json.dumps(where[0])
    assert 0 < diverged.sum() < 5 and len(trials) == 6
    assert (trials["objective"].isna() == diverged).all()
    assert trials["error"][diverged].str.contains("Diverged: the training loss is nan").all()
    output, error = capsys.readouterr()
    assert "Diverged" in output
    own = [line for line in error.splitlines() if line.startswith("[1/6] a on toy, its own config: ")]
    assert own[0].endswith(": running") and re.search(r": [\d.]+, [\d.]+ s$", own[1])

    spec = spec_of(tmp_path, "a", tune={}, failing={"a": {"while_there": where[0], "how": "nan"}})
    for _ in range(2):
        assert main(command(spec, tmp_path / "none")) == 1
        shown = capsys.readouterr()
        assert "every trial failed, the first with Diverged" in shown.err
        assert not (tmp_path / "none" / "tuned" / "toy" / "a.yaml").exists()


FULL = OSError(errno.ENOSPC, "No space left on device", "/elsewhere/vectors.npy")


@pytest.mark.parametrize("kind", ["full", "protected", "missing"])
def test_a_disk_that_fails_says_nothing_of_the_options_and_a_missing_file_does(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    protected = PermissionError(errno.EACCES, "Permission denied", str(results / "tuned" / "x"))
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "/elsewhere/words.txt")
    error = {"full": FULL, "protected": protected, "missing": missing}[kind]

    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("itmbench.runner.tune.train", fail)
    status = main(command(spec_of(tmp_path, "a"), results))
    assert status == {"full": 1, "protected": 2, "missing": 1}[kind]
    failed = results / "tuned" / "toy" / "a.csv"
    assert failed.exists() == (kind == "missing")
    if kind == "missing":
        assert table(results, "a")["error"].str.startswith("FileNotFoundError: ").all()


def test_more_trials_are_added_to_those_that_are_there(whole: tuple[Path, Path], tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "a")
    for trials in (2, 3, 1):  # the last asks for fewer than there are
        assert tune(spec, tmp_path / "results", trials) == []
        assert len(table(tmp_path / "results", "a")) == max(trials, 2 if trials == 2 else 3)
    assert content(tmp_path / "results")["a.csv"] == content(whole[1])["a.csv"]


def test_a_finished_search_is_answered_without_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_features(tmp_path / "features")
    encoder = {"class_path": "FeatureEncoder", "init_args": {"width": 16}}
    spec = {
        "datasets": {"mine": "data.yaml"},
        "methods": {"m": "m.yaml"},
        "config": {"trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}},
        "tune": {"shared": {LR: [0.001, 0.002]}},
    }
    data = {"data": {"class_path": "FeatureFolder", "init_args": {"root": "features", "batch_size": 8}}}
    model = {"model": {"class_path": "DualEncoder", "init_args": {"dim": 8, "image": encoder, "text": encoder}}}
    for name, each in (("own", spec), ("data", data), ("m", model)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(each))
    monkeypatch.chdir(tmp_path)
    words = ["tune", "own.yaml", "--trials", "2"]
    assert main(words) == 0
    first = capsys.readouterr().out.partition("\nm on mine\n")[2]
    assert first.split()[:4] == ["trial", "model.lr", "objective", "minutes"]
    assert first.endswith(
        "chosen options: results/tuned/mine/m.yaml\n\nA benchmark uses these options if its file says tuned: true.\n"
    )

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("planned again")

    monkeypatch.setattr("itmbench.runner.tune.plan", refuse)
    assert main(words) == 0
    assert capsys.readouterr().out == f"\nm on mine\n{first}"
    assert main(["tune", "own.yaml", "--trials", "3"]) == 1 and "planned again" in capsys.readouterr().err
    np.save("features/labels.npy", np.zeros(60, int))  # other data are another search
    assert main(words) == 1 and "planned again" in capsys.readouterr().err


def test_a_search_belongs_to_its_code_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path, "a")

    def key() -> str:
        [study] = plan(spec, tmp_path / "results", 3, "", Planner())
        return study.key

    own = key()
    assert key() == own
    with monkeypatch.context() as patch:
        patch.setattr("itmbench.runner.key.code_digest", lambda classes: "edited")
        assert key() != own
    assert key() == own
    with (tmp_path / "toy" / "0.png").open("ab") as picture:
        picture.write(b"more")
    assert key() != own


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"shared": {"model.init_args.lrr": [1.0]}}, "a on toy: tune: .*lrr"),
        ({"shared": {LR: ["much"]}}, "a on toy: tune: model.*much"),
        ({"shared": {LR: [0.1, "much"]}}, "a on toy: tune: model.*much"),
        ({"shared": {LR: []}}, "tune.shared.model.init_args.lr.choices: List should have at least 1 item"),
        ({"shared": {LR: {"low": 1}}}, "tune.shared.model.init_args.lr: give a list of choices, or low and high"),
        ({"shared": {LR: {"low": 2, "high": 1}}}, "low must be less than high"),
        ({"shared": {LR: {"low": 0, "high": 1, "log": True}}}, "more than 0 with log: true"),
        ({"shared": {LR: {"lowest": 0, "high": 1}}}, "lr.lowest: unknown key; choose one of choices, low, high, log"),
        (
            {"shared": {"model.init_arg.lr": [0.1]}},
            r"tune: model.init_arg.lr: there is no model.init_arg; did you mean model.init_args\? name options below "
            r"model.init_args or trainer$",
        ),
        ({"shared": {"trianer.precision": [32]}}, r"there is no trianer; did you mean trainer\?"),
        ({"shared": {"lr": [0.1]}}, "tune: lr: there is no lr; name options below model.init_args or trainer$"),
        ({"shared": {"trainer.max_epochs": [1, 9]}}, "trainer.max_epochs: the training budget is the same for all"),
        ({"shared": {"trainer.accumulate_grad_batches": [1, 9]}}, "accumulate_grad_batches: the training budget is"),
        ({"shared": {"trainer.overfit_batches": [0.1, 1.0]}}, "overfit_batches: the training budget is"),
        ({"shared": {"trainer.fast_dev_run": [True, False]}}, "fast_dev_run: the training budget is"),
        ({"shared": {"trainer.min_epochs": [1, 9]}}, "min_epochs: the training budget is"),
        ({"shared": {"trainer.callbacks": [[], []]}}, "callbacks: the training budget is"),
        ({"shared": {"trainer.callbacks.init_args.patience": [1, 2]}}, "patience: the training budget is"),
        ({"shared": {"model.init_args.protocol.init_args.ks": [[1]]}}, "protocol.init_args.ks: belongs to what is mea"),
        ({"shared": {"data.init_args.size": [8, 9]}}, "data.init_args.size: belongs to what is measured or trained on"),
        ({"shared": {"seed_everything": [1, 2]}}, "seed_everything: belongs to what is measured"),
        ({"shared": {"threads": [1, 2]}}, "threads: belongs to what is measured"),
        ({"shared": {"model.class_path": ["DualEncoder"]}}, "model.class_path: belongs to what is measured"),
        ({"shared": {"model.init_args": [{"lr": 0.1}]}}, "model.init_args: belongs to what is measured"),
        ({"shared": {"trainer": [{"max_epochs": 9}]}}, "trainer: belongs to what is measured"),
        (
            {"shared": {LOSS: ["InfoNCE"]}, "methods": {"a": {f"{LOSS}.init_args.temperature": [0.1, 0.2]}}},
            "loss.init_args.temperature: lies within model.init_args.loss, which is tuned too",
        ),
        ({"shared": {LR: {"low": 0.1, "high": float("inf")}}}, "lr.high: give a finite number, not inf"),
        ({"shared": {LR: {"low": float("nan"), "high": 1}}}, "lr.low: give a finite number, not nan"),
        ({"shared": {LR: {"low": False, "high": 1}}}, "lr.low: give a finite number, not False"),
        ({"shared": {LR: {"low": "1e-4", "high": "much"}}}, "lr.high: give a finite number, not 'much'"),
        ({"shared": {LR: 0.1}}, "lr: give a list of choices, or low and high, not 0.1"),
        ({"shared": None}, "tune.shared: give a mapping, not None"),
        ([LR], "tune: give a mapping, not "),
        ({"shard": {}}, r"tune.shard: unknown key; did you mean shared\? choose one of seed, shared, methods"),
        ({"methods": {"c": {}}}, "tune.methods.c: no method c in this benchmark; choose one of a"),
        ({"seed": 0}, "tune.seed: a seed of the benchmark"),
        (None, "has no tune block"),
    ],
)
def test_a_wrong_space_is_refused_in_one_line(
    tmp_path: Path, tune: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(tmp_path, "a", tune=tune)
    assert main(command(spec, tmp_path / "results")) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1, error
    assert not (tmp_path / "results" / "tuned").exists()


def test_a_choice_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cell = load_cells(spec_of(tmp_path, "a"))[0]
    path = tmp_path / "tuned" / "toy" / "a.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("key: k\ntrials: 0\nchosen: 0\nobjective: 1.0\nbenchmark: b\nconfig: {}\n")
    with pytest.raises(InputError, match=r"a.yaml: trials: .*greater than or equal to 1; remove the file and run"):
        Tuned.load(cell, tmp_path)
    path.write_text("")
    with pytest.raises(InputError, match=r"a.yaml: needs a mapping, but holds None; remove the file and run"):
        Tuned.load(cell, tmp_path)


def test_the_sampler_follows_the_better_trials() -> None:
    """On a smooth objective of one option, later trials come closer to its best than without an objective."""

    def best(follow: bool) -> float:
        distributions: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
        trials: list[Any] = []
        for _ in range(20):
            params = propose(distributions, trials, seed=3)
            value = -((params["x"] - 0.3) ** 2) if follow else 0.0
            trials.append(optuna.trial.create_trial(value=value, params=params, distributions=distributions))
        return float(np.mean([abs(trial.params["x"] - 0.3) for trial in trials[10:]]))

    assert best(follow=True) < 0.6 * best(follow=False)


def test_whole_limits_give_whole_numbers(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "a", tune={"shared": {"model.init_args.dim": {"low": 8, "high": 9}}})
    assert tune(spec, tmp_path / "results", 3) == []
    assert set(table(tmp_path / "results", "a")["model.init_args.dim"][1:]) <= {"8", "9"}


def test_a_table_that_is_damaged_is_written_again(
    whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = shutil.copytree(whole[1], tmp_path / "results")
    path = results / "tuned" / "toy" / "a.csv"
    true = path.read_bytes()
    damages: list[Any] = [
        lambda: path.unlink(),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"\xff\x00\n,,"),
        lambda: path.write_text("trial,objective\n0,99\n"),
    ]
    for damage in damages:
        damage()
        assert main([*command(whole[0], results), "--only", "method=a"]) == 0
        assert path.read_bytes() == true and "99" not in capsys.readouterr().out.split()


def _drop(table: str) -> Any:
    def drop(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"drop table {table}")

    return drop


def _file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("toy/a.db", lambda path: path.write_bytes(b"garbage" * 99), "cannot be used .* not a database.; remove it"),
        (
            "toy/a.db",
            lambda path: path.write_bytes(path.read_bytes()[:9000]),
            "cannot be used .* malformed.; remove",
        ),
        ("toy/a.db", _folder, "cannot be used as storage of trials .unable to open database file.; remove it"),
        ("toy/a.db", _drop("trials"), "cannot be used as storage of trials .no table trials.; remove it"),
        ("toy/a.db", _drop("trial_values"), "cannot be used as storage of trials .no table trial_values.; remove it"),
        ("toy/a.csv", _folder, "a.csv: is a folder; remove it"),
        ("", _file, "tuned/toy: cannot be a folder .*; remove the file in"),
        ("toy", _file, "tuned/toy: cannot be a folder .*; remove the file in"),
    ],
)
def test_damage_that_cannot_be_repaired_is_told_in_one_line(
    whole: tuple[Path, Path], tmp_path: Path, name: str, damage: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = shutil.copytree(whole[1], tmp_path / "results")
    damage(results / "tuned" / name)
    capsys.readouterr()
    assert main([*command(whole[0], results), "--only", "method=a", "--trials", "4"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1, error
