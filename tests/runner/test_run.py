"""A benchmark from its file to its table: what is stored, what is not run again, what a failure leaves."""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from small_benchmark import FILES, write
from toy import TOY_MODEL
from toy_clip import save_toy_clip

import itmbench
from itmbench import store
from itmbench.cli.main import main
from itmbench.evaluation.leaks import Finding
from itmbench.report.cells import read_epochs, read_examples
from itmbench.runner import audit


def test_a_benchmark_runs_stores_and_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path, "one", "two", epochs=2)
    results = tmp_path / "results"
    command = ["bench", str(spec), "--results", str(results)]
    assert main([*command, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("to run, time unknown") == 2 and not results.exists()

    assert main(command) == 0
    printed = capsys.readouterr()
    assert "epoch 2/2" in printed.err and "index.html" in printed.out
    assert (results / "index.html").read_text().count("one") > 1
    cell = results / "small" / "toy" / "one" / "seed0"
    assert {path.name for path in cell.iterdir()} >= FILES
    assert "last.ckpt" not in {path.name for path in cell.iterdir()}
    assert not list((results / store.RUNNING).rglob("*.ckpt"))
    result = json.loads((cell / "result.json").read_text())
    queries = pd.read_parquet(cell / "per_query.parquet")
    shown = read_examples(cell)
    assert shown is not None and Path(shown.root) == (tmp_path / "toy").resolve()
    ranks = {(side, query): rank for side, query, rank in queries[["direction", "query", "rank"]].to_numpy()}
    assert {(query.side, query.id): query.outcome for query in shown.queries}.items() <= ranks.items()
    for query in shown.queries:  # a rank of 1 is the first result, which is the query's own
        assert (query.outcome == 1) == (query.results[0].right == "own")
    assert [epoch.number for epoch in read_epochs(cell)] == [1, 2]
    assert read_epochs(cell)[-1].loss > 0 and read_epochs(cell)[-1].objective > 0
    recall = (queries[queries.direction == "i2t"]["rank"] <= 1).mean()
    assert result["metrics"]["i2t/R@1"] == pytest.approx(recall)
    assert result["parameters"]["all"] == result["parameters"]["trained"] > 10_000
    assert min(result["flops"]["image"], result["flops"]["text"]) > 1_000
    assert result["flops"]["pair"] == 2 * 32  # a product of two vectors
    assert result["throughput"]["scored_pairs_per_second"] > 1e4
    assert min(result["throughput"].values()) > 0 and result["peak_memory"] > 1e8
    assert result["protocol"]["objective"] == "rSum" and result["pretraining"] == "scratch"
    pairs = 2 * 16  # two captions of every training image
    limits = {"max_epochs": 2, "max_steps": -1, "limit_train_batches": 1.0}
    assert result["budget"] == {**limits, "batch_size": 16, "patience": None}
    assert (result["steps"], result["choices"]) == (2 * pairs // 16, {})
    assert result["training"] == result["recipe"]  # no option of this method only changes its use
    torch.load(cell / "best.ckpt", weights_only=True)

    frame = itmbench.load_results(results)
    assert list(frame["method"]) == ["one", "two"]
    assert frame["rSum"].notna().all() and frame["fingerprint"].nunique() == 1

    written = (cell / "result.json").stat().st_mtime_ns
    assert main(command) == 0
    assert capsys.readouterr().err.count("done before") == 2
    assert (cell / "result.json").stat().st_mtime_ns == written


def test_a_model_is_measured_as_it_comes_when_no_epoch_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clip"
    save_toy_clip(folder)
    spec = write(tmp_path, "m", epochs=2)
    zero_shot = {"model": {"class_path": "CLIP", "init_args": {"name": str(folder)}}, "trainer": {"max_epochs": 0}}
    changed = yaml.safe_load(spec.read_text()) | {"overrides": [{"method": "m", "config": zero_shot}]}
    spec.write_text(yaml.safe_dump(changed))
    assert main(["bench", str(spec), "--results", str(tmp_path / "results")]) == 0
    assert "epoch 0/0" in capsys.readouterr().err
    cell = tmp_path / "results" / "small" / "toy" / "m" / "seed0"
    result = json.loads((cell / "result.json").read_text())
    assert (result["epochs"], result["pretraining"]) == (0, "image-text")
    assert (result["steps"], result["budget"]) == (0, {})
    weights = torch.load(cell / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(weights["text.projection.weight"], save_toy_clip(folder).text_projection.weight)
    # The validation objective is that of the same weights.
    assert main(["validate", "--config", str(cell / "config.yaml"), "--trainer.default_root_dir", str(tmp_path)]) == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  rSum"))
    assert result["validation"] == pytest.approx(float(said.split()[1]), abs=1e-3)


def test_the_recipe_is_that_of_all_seeds_and_of_no_other_config(tmp_path: Path) -> None:
    spec = write(tmp_path, "m", seeds=(0, 1), epochs=0)
    content = yaml.safe_load(spec.read_text())
    assert main(["bench", str(spec), "--results", str(tmp_path / "results")]) == 0
    first = itmbench.load_results(tmp_path / "results")["recipe"]
    assert first[0] == first[1] != ""
    content["config"]["trainer"]["gradient_clip_val"] = 0.5
    spec.write_text(yaml.safe_dump(content))
    assert main(["bench", str(spec), "--results", str(tmp_path / "results"), "--only", "seed=1"]) == 0
    again = itmbench.load_results(tmp_path / "results")["recipe"]
    assert again[0] == first[0] != again[1]


def test_a_checkpoint_callback_of_the_users_does_not_choose_the_epoch(tmp_path: Path) -> None:
    spec = write(tmp_path, "m", epochs=2)
    assert main(["bench", str(spec), "--results", str(tmp_path / "alone")]) == 0
    content = yaml.safe_load(spec.read_text())
    content["config"]["trainer"]["callbacks"] = [
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": str(tmp_path), "monitor": "val/i2t/MeanR", "mode": "min", "filename": "other"},
        }
    ]
    spec.write_text(yaml.safe_dump(content))
    assert main(["bench", str(spec), "--results", str(tmp_path / "beside")]) == 0
    alone, beside = (
        store.Result.load(tmp_path / name / "small" / "toy" / "m" / "seed0") for name in ("alone", "beside")
    )
    assert (tmp_path / "other.ckpt").exists()
    assert (beside.validation, beside.metrics) == (alone.validation, alone.metrics)


def test_a_benchmark_keeps_the_quick_checks_and_its_tables_show_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(tmp_path, "honest", "leaky", epochs=2)
    leaky = {"class_path": "toy_leaks.BatchMean", "init_args": TOY_MODEL["init_args"]}
    (tmp_path / "leaky.yaml").write_text(yaml.safe_dump({"model": leaky}))
    results = tmp_path / "results"
    assert main(["bench", str(spec), "--results", str(results)]) == 0
    table = capsys.readouterr().out
    audits = {result.method: result.audit for _, result in store.results(results)}
    assert list(audits["honest"]) == ["alone", "pairs", "frozen", "protocol", "subset", "blind", "replay"]
    assert all(check["passed"] and check["found"] <= check["bound"] < 1e-4 for check in audits["honest"].values())
    assert [name for name, check in audits["leaky"].items() if not check["passed"]] == ["alone", "subset", "replay"]
    frame = itmbench.load_results(results)
    assert list(frame["audit_failed"]) == ["", "alone, subset, replay"]
    assert list(frame["inductive"]) == [True, False]
    assert "leaky †" in table and "honest †" not in table


def test_the_checks_do_not_count_in_the_seconds_of_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = audit.quick_audit

    def slow(*arguments: Any) -> list[Finding]:
        time.sleep(3)
        return checks(*arguments)

    monkeypatch.setattr(audit, "quick_audit", slow)
    began = time.perf_counter()
    itmbench.run(write(tmp_path, "one"), tmp_path / "results")
    result = store.Result.load(tmp_path / "results" / "small" / "toy" / "one" / "seed0")
    assert result.seconds < time.perf_counter() - began - 3
