"""Every config that is shipped names classes and options that exist, alone and on top of the others."""

from pathlib import Path

import pytest
import yaml

from itmbench.cli.main import main
from itmbench.runner.cell_cli import CellCLI
from itmbench.runner.spec import Config, load_benchmark, load_cells, merge
from itmbench.runner.tune import require_options
from itmbench.runner.tuned import cells_to_tune
from itmbench.runner.yaml_files import load_yaml

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CONFIGS = BENCHMARKS / "configs"
METHOD = CONFIGS / "methods" / "dual_infonce.yaml"
DATA = CONFIGS / "data" / "flickr8k.yaml"


def parsed(*paths: Path) -> Config:
    config: Config = {}
    for path in paths:
        config = merge(config, load_yaml(path))
    return dict(yaml.safe_load(CellCLI(config).dump()))


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_valid(path: Path) -> None:
    config = parsed(DATA, METHOD, path)
    asked = load_yaml(path)
    for part in ("data", "model"):
        for key, value in asked.get(part, {}).get("init_args", {}).items():
            found = config[part]["init_args"][key]
            assert (found["class_path"].endswith(value["class_path"])) if isinstance(value, dict) else found == value


@pytest.mark.parametrize(
    "path", sorted(set(BENCHMARKS.rglob("*.yaml")) - set(CONFIGS.rglob("*.yaml"))), ids=lambda path: path.stem
)
def test_every_benchmark_is_valid(path: Path) -> None:
    cells = load_cells(path)
    assert cells
    if load_benchmark(path).tune:
        for cell, knobs in cells_to_tune(path, ""):
            require_options(cell, knobs)
    for cell in cells[:: max(1, len(cells) // 6)]:
        assert CellCLI(cell.config).config.seed_everything == cell.seed


@pytest.mark.parametrize(
    ("name", "method", "option", "expected"),
    [
        ("captions", "sedra", "shuffled_captions", {"noise0": 0, "noise20": 0.2, "noise40": 0.4}),
        ("labels", "mcr_dgn", "corrupted_labels", {"labels0": 0, "labels20": 0.2, "labels50": 0.5}),
    ],
)
def test_a_noise_benchmark_differs_in_noise_alone(
    name: str, method: str, option: str, expected: dict[str, float]
) -> None:
    found: dict[str, dict[str, float]] = {}
    rest: dict[str, list[Config]] = {}
    for cell in load_cells(BENCHMARKS / "noise" / f"{name}.yaml", f"method={method},seed=1"):
        corpus, _, noise = cell.dataset.rpartition("-")
        config = yaml.safe_load(CellCLI(cell.config).dump())
        found.setdefault(corpus, {})[noise] = config["data"]["init_args"].pop(option)
        rest.setdefault(corpus, []).append(config)
    assert all(shares == expected for shares in found.values())
    for configs in rest.values():
        assert all(config == configs[0] for config in configs)
        assert configs[0]["data"]["init_args"]["batch_size"] == 32


def test_the_command_line_puts_an_encoder_preset_on_top_of_a_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    method = METHOD.relative_to(BENCHMARKS)  # packaged, so there need not be such a folder here
    configs = ["--config", str(DATA), "--config", str(method), "--config=benchmarks/configs/encoders/base.yaml"]
    assert main(["fit", *configs, "--trainer.devices=2", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    arguments = config["model"]["init_args"]
    assert arguments["loss"]["class_path"] == "itmbench.methods.losses.InfoNCE"
    assert arguments["text"]["init_args"]["name"] == "bert-base-uncased"
    assert arguments["image"]["init_args"]["image_size"] == 224
    assert str(config["trainer"]["devices"]) == "2"
