"""Every registered method on a folder of one's own features: no photograph, no tokenizer, no width given."""

from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from own_features import write_features

from itmbench.bench import registry, store
from itmbench.cli import main
from itmbench.data.datasets import FeatureFolder
from itmbench.encoders import FeatureEncoder
from itmbench.errors import InputError
from itmbench.methods.base import Matcher
from itmbench.methods.clip.module import CLIP
from itmbench.methods.dual_encoder.module import DualEncoder

CONFIGS = Path(__file__).parents[2] / "benchmarks" / "configs"
METHODS = [entry.name for entry in registry.entries("methods") if entry.name != "clip"]
NEED_LABELS = {"dcmh", "dscmr", "gnn4cmr"}


def run(folder: Path, model: Matcher, data: FeatureFolder) -> float:
    """Two training steps, then the test; its objective."""
    fit = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=2,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    fit.fit(model, data)
    return float(fit.test(model, data, verbose=False)[0]["test/objective"])


@pytest.mark.parametrize("tokens", [False, True], ids=["vectors", "tokens"])
@pytest.mark.parametrize("name", METHODS)
def test_trains_and_is_tested(tmp_path: Path, name: str, tokens: bool) -> None:
    """Vectors with labels, and tokens with pairs alone where that is enough."""
    torch.manual_seed(0)
    model = registry.find("methods", name).load()(image=FeatureEncoder(width=16, hidden=[8]), text=FeatureEncoder())
    root = write_features(tmp_path, tokens, labels=not tokens or name in NEED_LABELS)
    assert run(tmp_path, model, FeatureFolder(str(root), batch_size=12)) > 0
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
def test_any_shape_goes_with_labels_or_without(tmp_path: Path, tokens: bool, labels: bool) -> None:
    data = FeatureFolder(str(write_features(tmp_path, tokens, labels)), batch_size=12)
    assert run(tmp_path, DualEncoder(image=FeatureEncoder(), text=FeatureEncoder()), data) > 0
    assert data.trainer is not None
    assert {"test/mAP", "test/rSum"} & set(data.trainer.callback_metrics) == {f"test/{'mAP' if labels else 'rSum'}"}


@pytest.mark.parametrize("name", sorted(NEED_LABELS))
def test_who_needs_labels_says_so(tmp_path: Path, name: str) -> None:
    model = registry.find("methods", name).load()(image=FeatureEncoder(), text=FeatureEncoder())
    with pytest.raises(InputError, match="needs labels: use a dataset with labels"):
        run(tmp_path, model, FeatureFolder(str(write_features(tmp_path, labels=False)), batch_size=12))


def test_clip_says_that_it_reads_photographs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads photographs, and this dataset holds ready-made features") as said:
        run(tmp_path, CLIP(), FeatureFolder(str(write_features(tmp_path)), batch_size=12))
    assert "\n" not in str(said.value)


def test_from_the_command_line_to_a_test_in_a_new_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A method learns, its checkpoint is read by a model whose widths nobody has told, and it scores the same."""
    root = write_features(tmp_path / "set")
    configs = ("data/feature_folder", "methods/dual_infonce", "encoders/features")
    quiet = ["accelerator=cpu", "max_epochs=15", "enable_progress_bar=false", "enable_model_summary=false"]
    command = ["fit", *(f"--config={CONFIGS / each}.yaml" for each in configs), f"--data.root={root}"]
    options = [*(f"--trainer.{option}" for option in quiet), f"--trainer.default_root_dir={tmp_path}"]
    assert main([*command, *options, "--data.batch_size=12"]) == 0
    hint = next(line for line in capsys.readouterr().out.splitlines() if "itmbench test --config" in line).split()
    assert main(hint[1:]) == 0
    table = capsys.readouterr().out
    score = float(next(line for line in table.splitlines() if line.startswith("  mAP  ")).split()[1])
    assert table.startswith("set, test: label-retrieval") and score > 0.6  # a random order has .37
    assert yaml.safe_load(Path(hint[3]).read_text())["model"]["init_args"]["image"]["init_args"]["input_dim"] is None


def test_one_benchmark_runs_methods_on_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {
        "datasets": {"mine": [str(CONFIGS / f"{each}.yaml") for each in ("data/feature_folder", "encoders/features")]},
        "methods": {name: str(CONFIGS / "methods" / f"{name}.yaml") for name in ("cca", "vse")},
        "config": {
            "data": {"init_args": {"root": str(write_features(tmp_path / "set")), "batch_size": 12}},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False},
        },
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec))
    assert main(["bench", str(tmp_path / "mine.yaml"), "--results", str(tmp_path / "results")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("epoch 1/1") == 2
    results = {result.method: result for _, result in store.results(tmp_path / "results")}
    assert set(results) == {"cca", "vse"} and {result.data["name"] for result in results.values()} == {"set"}
    assert all(check["passed"] for result in results.values() for check in result.audit.values())
    assert results["cca"].parameters["all"] == (7 + 5) * 5
    assert results["cca"].metrics["mAP"] > results["cca"].metrics["chance/mAP"] + 0.05
