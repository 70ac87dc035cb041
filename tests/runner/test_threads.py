"""The number of threads is part of a config: whatever the machine or the program had set before, numbers repeat."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from small_benchmark import content, write
from toy import toy_arguments

from itmbench import store
from itmbench.cli.main import main
from itmbench.runner import run


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def result(folder: Path) -> store.Result:
    return next(result for _, result in store.results(folder))


def test_a_cell_computes_with_the_threads_of_its_config_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    spec = write(tmp_path, "m", epochs=1)
    asked = yaml.safe_load(spec.read_text())
    asked["config"]["threads"] = 2
    spec.write_text(yaml.safe_dump(asked))
    for ambient in (1, 3):
        torch.set_num_threads(ambient)
        assert run.run(spec, tmp_path / f"{ambient}") == []
        assert torch.get_num_threads() == ambient
    one, three = (content(tmp_path / name) for name in "13")
    assert one == three
    hardware = result(tmp_path / "1").hardware
    assert hardware["threads"] == 2 and hardware["cores"] >= 1
    assert hardware["cpu_capability"] == torch.backends.cpu.get_cpu_capability() and hardware["blas"]
    assert yaml.safe_load(next((tmp_path / "1").rglob("config.yaml")).read_text())["threads"] == 2

    del asked["config"]["threads"]
    spec.write_text(yaml.safe_dump(asked))
    assert run.run(spec, tmp_path / "default") == []
    assert result(tmp_path / "default").hardware["threads"] == 1
    assert result(tmp_path / "default").key != result(tmp_path / "1").key


def test_fit_takes_the_number_and_leaves_it_alone_if_not_given(tmp_path: Path) -> None:
    torch.set_num_threads(3)
    for options, threads in ((["--threads=2"], 2), ([], 3)):
        assert main(["fit", *toy_arguments(tmp_path, "--trainer.fast_dev_run=true", *options)]) == 0
        assert torch.get_num_threads() == threads
        torch.set_num_threads(3)
    assert main(["fit", *toy_arguments(tmp_path, "--threads=0")]) == 2
