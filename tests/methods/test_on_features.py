"""Every registered method on a folder of one's own features: no photograph, no tokenizer, no width given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from own_features import write_features
from toy import trainer

from itmbench import store
from itmbench.cli.main import main
from itmbench.data.datasets import FeatureFolder
from itmbench.encoders import FeatureEncoder
from itmbench.errors import InputError
from itmbench.methods.base import Matcher
from itmbench.methods.clip import CLIP
from itmbench.runner import registry
from itmbench.runner.lightning import TRAINER_DEFAULTS
from itmbench.runner.yaml_files import load_yaml

CONFIGS = Path(__file__).parents[2] / "benchmarks" / "configs"
METHODS = [entry.name for entry in registry.entries("methods") if entry.name not in ("clip", "identity")]
NEED_LABELS = {"dcmh", "dscmr", "gnn4cmr", "mcr_dgn"}
METHODS_OF_ONE_VECTOR = {"sedra", "dual_infonce", "cca", *NEED_LABELS}


def run(folder: Path, model: Matcher, data: FeatureFolder) -> float:
    """Two training steps, then the test; its objective."""
    fit = trainer(folder, max_steps=2, limit_val_batches=0)
    fit.fit(model, data)
    return float(fit.test(model, data, verbose=False)[0]["test/objective"])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("name", METHODS)
def test_trains_in_any_precision_with_the_defaults_of_the_command_line(
    tmp_path: Path, name: str, precision: Any
) -> None:
    """On vectors with labels, and on tokens with pairs alone if the method needs no labels."""
    torch.manual_seed(0)
    for tokens in (False, True):
        model = registry.find("methods", name).load()(image=FeatureEncoder(width=16, hidden=[8]), text=FeatureEncoder())
        root = write_features(tmp_path / str(tokens), tokens, labels=not tokens or name in NEED_LABELS)
        fit = trainer(tmp_path, **(TRAINER_DEFAULTS | {"max_steps": 2, "precision": precision}))
        data = FeatureFolder(str(root), batch_size=12)
        fit.fit(model, data)
        assert float(fit.test(model, data, verbose=False)[0]["test/objective"]) > 0
        assert all(bool(weight.isfinite().all()) for weight in model.parameters())


@pytest.mark.parametrize("name", [name for name in METHODS if name != "cca"])  # which has to be solved first
def test_what_the_mask_hides_is_never_looked_at(name: str) -> None:
    """Also where it hides all of an item."""
    torch.manual_seed(0)
    model = registry.find("methods", name).load()(image=FeatureEncoder(width=6), text=FeatureEncoder(width=6))
    if name == "mcr_dgn":
        model.adapt_to_state({"classifier.weight": torch.zeros(3, 8)})
    tokens, mask = torch.randn(3, 5, 6), torch.arange(5) < torch.tensor([[5], [2], [0]])
    hidden = torch.where(mask.unsqueeze(2), tokens, torch.randn(3, 5, 6))
    with torch.no_grad():
        for encode in (model.eval().encode_image, model.encode_text):
            one, other = encode({"features": tokens, "mask": mask}), encode({"features": hidden, "mask": mask})
            assert torch.equal(one.pooled, other.pooled)
            if one.tokens is not None:
                assert torch.equal(one.tokens[one.mask], other.tokens[other.mask])


@pytest.mark.parametrize("name", sorted(NEED_LABELS))
def test_who_needs_labels_says_so(tmp_path: Path, name: str) -> None:
    model = registry.find("methods", name).load()(image=FeatureEncoder(), text=FeatureEncoder())
    with pytest.raises(InputError, match="needs labels; use a dataset with labels"):
        run(tmp_path, model, FeatureFolder(str(write_features(tmp_path, labels=False)), batch_size=12))


def other_labels(root: Path) -> None:
    np.save(root / "labels.npy", np.arange(60) % 3)


def no_labels(root: Path) -> None:
    (root / "labels.npy").unlink()


def wider_images(root: Path) -> None:
    np.save(root / "images.npy", np.ones((60, 9), np.float32))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("dscmr", other_labels, "DSCMR: the checkpoint does not fit (size mismatch for classifier.weight: "),
        ("gnn4cmr", other_labels, "GNN4CMR: the checkpoint does not fit (size mismatch for classifiers."),
        ("mcr_dgn", other_labels, "MCRDGN: the checkpoint does not fit (size mismatch for label_nodes.image."),
        ("dscmr", no_labels, "features: has no labels, and DSCMR needs labels; use a dataset with labels"),
        ("cca", wider_images, "CCA: the checkpoint does not fit (size mismatch for project_image: "),
        ("dcmh", wider_images, "DCMH: the checkpoint does not fit (size mismatch for image.layers.0.weight: "),
    ],
)
def test_a_checkpoint_of_other_data_is_refused_in_one_line(
    tmp_path: Path, name: str, change: Callable[[Path], None], said: str
) -> None:
    root = write_features(tmp_path / "features")
    method = registry.find("methods", name).load()
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fit.fit(method(image=FeatureEncoder(), text=FeatureEncoder()), FeatureFolder(str(root)))
    fit.save_checkpoint(tmp_path / "some.ckpt")
    change(root)
    with pytest.raises(InputError) as refused:
        trainer(tmp_path).test(
            method(image=FeatureEncoder(), text=FeatureEncoder()),
            FeatureFolder(str(root)),
            ckpt_path=tmp_path / "some.ckpt",
        )
    line = str(refused.value)
    assert line.startswith(said) and "\n" not in line and len(line) < 450


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
    trainer = [*(f"--trainer.{option}" for option in quiet), f"--trainer.default_root_dir={tmp_path}"]
    assert main([*command, *trainer, "--data.batch_size=12"]) == 0
    hint = next(line for line in capsys.readouterr().out.splitlines() if "itmbench test " in line).split()
    assert main(hint[1:]) == 0
    table = capsys.readouterr().out
    score = float(next(line for line in table.splitlines() if line.startswith("  mAP  ")).split()[1])
    assert table.startswith("set, test: label-retrieval") and score > 0.6  # a random order has .37
    options = yaml.safe_load(Path(hint[2], "config.yaml").read_text())["model"]["init_args"]
    assert options["image"]["init_args"]["input_dim"] is None


def test_one_benchmark_runs_every_method_on_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``benchmarks/features.yaml`` as its header says it is run, but for its epochs."""
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "data" / "features", dims=(20, 10), items=300)
    spec = load_yaml(CONFIGS.parent / "features.yaml")
    for part in ("datasets", "methods"):
        for name, files in spec[part].items():
            spec[part][name] = [str(CONFIGS.parent / each) for each in ([files] if isinstance(files, str) else files)]
    spec["config"]["trainer"] |= {"max_epochs": 2, "check_val_every_n_epoch": 2, "accelerator": "cpu"}
    spec["config"]["model"]["init_args"]["dim"] = 16
    Path("few.yaml").write_text(yaml.safe_dump(spec))
    assert main(["bench", "few.yaml"]) == 0
    printed = capsys.readouterr().err
    assert printed.count("epoch 2/2") == len(METHODS_OF_ONE_VECTOR) - 1 and printed.count("epoch 1/1") == 1
    results = {result.method: result for _, result in store.results(tmp_path / "results")}
    assert set(results) == METHODS_OF_ONE_VECTOR
    for result in results.values():
        assert result.data["name"] == "features" and all(check["passed"] for check in result.audit.values())
        assert result.metrics["mAP"] > result.metrics["chance/mAP"] + 0.05
    assert results["cca"].parameters["all"] == (20 + 10) * 10
