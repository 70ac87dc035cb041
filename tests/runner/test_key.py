"""What a cell's key is made of, and what is no part of it."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from toy import TOY_MODEL, toy_corpus

from itmbench.data.corpus import Corpus
from itmbench.errors import InputError
from itmbench.methods.mcr_dgn import MCRDGN
from itmbench.runner.cell_cli import CellCLI
from itmbench.runner.key import cell_key, without_switchable


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Corpus]:
    folder = tmp_path_factory.mktemp("toy")
    data = {"class_path": "toy.ToyData", "init_args": {"root": str(folder), "copies": 1}}
    config = yaml.safe_load(CellCLI({"model": TOY_MODEL, "data": data}).dump())
    return config, toy_corpus(folder, copies=1)


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    new = copy.deepcopy(config)
    *parents, last = path.split(".")
    at = new
    for parent in parents:
        at = at[parent]
    at[last] = value
    return new


@pytest.mark.parametrize(
    ("path", "value", "counts"),
    [
        ("trainer.logger", True, False),
        ("trainer.enable_progress_bar", True, False),
        ("trainer.default_root_dir", "elsewhere", False),
        ("last.dirpath", "elsewhere", False),
        ("best.dirpath", "elsewhere", False),
        ("data.init_args.num_workers", 3, False),
        ("data.init_args.root", "elsewhere", False),
        ("seed_everything", 1, True),
        ("trainer.max_epochs", 3, True),
        ("trainer.precision", "bf16-mixed", True),
        ("best.monitor", "val/other", True),
        ("data.init_args.batch_size", 8, True),
        ("model.init_args.lr", 0.5, True),
        ("model.init_args.image.init_args.train_crop", 0.5, True),
        ("model.init_args.loss", {"class_path": "itmbench.methods.losses.InfoNCE", "init_args": {}}, True),
    ],
)
def test_options_that_can_change_a_result_count(
    resolved: tuple[dict[str, Any], Corpus], path: str, value: Any, counts: bool
) -> None:
    config, corpus = resolved
    assert (cell_key(changed(config, path, value), corpus) != cell_key(config, corpus)) == counts


def test_data_and_protocol_are_in_it(resolved: tuple[dict[str, Any], Corpus], tmp_path: Path) -> None:
    config, corpus = resolved
    assert cell_key(config, replace(corpus, train=corpus.train[1:])) != cell_key(config, corpus)
    assert cell_key(config, toy_corpus(tmp_path, labels=True, copies=1)) != cell_key(config, corpus)
    assert cell_key(config, replace(corpus, train=np.array(corpus.train))) == cell_key(config, corpus)


def test_what_only_changes_the_use_of_a_trained_model_is_not_in_the_hash_of_its_training(
    resolved: tuple[dict[str, Any], Corpus],
) -> None:
    _, corpus = resolved
    model = MCRDGN()
    config = {"model": {"class_path": "itmbench.methods.mcr_dgn.MCRDGN", "init_args": {"nodes": "all", "lr": 0.1}}}
    for name, value, same in (("nodes", "none", True), ("graph_weights", [0.5], True), ("lr", 0.2, False)):
        other = changed(config, f"model.init_args.{name}", value)
        assert cell_key(other, corpus) != cell_key(config, corpus)
        hashes = [cell_key(without_switchable(each, model), corpus) for each in (config, other)]
        assert (hashes[0] == hashes[1]) is same


def test_cells_are_quiet_unless_a_config_says_otherwise(tmp_path: Path) -> None:
    names = ("logger", "enable_progress_bar", "enable_model_summary")
    config = {"model": TOY_MODEL, "data": {"class_path": "toy.ToyData", "init_args": {"root": str(tmp_path)}}}
    quiet = CellCLI(config).config.trainer
    assert [quiet[name] for name in names] == [False, False, False]
    loud = CellCLI(config | {"trainer": {"logger": True, "enable_progress_bar": True}}).config.trainer
    assert loud.logger and loud.enable_progress_bar and not loud.enable_model_summary


@pytest.mark.parametrize(("name", "hint"), [("max_epoch", "; did you mean trainer.max_epochs[?]"), ("nonsense", "")])
def test_an_unknown_option_of_a_cell_has_a_hint_or_none(name: str, hint: str, tmp_path: Path) -> None:
    data = {"class_path": "toy.ToyData", "init_args": {"root": str(tmp_path)}}
    with pytest.raises(InputError, match=rf"does not accept option '{name}'{hint}{'' if hint else '$'}"):
        CellCLI({"model": TOY_MODEL, "data": data, "trainer": {name: 1}})
