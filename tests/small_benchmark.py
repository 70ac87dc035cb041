"""A benchmark of seconds, in processes of its own: what it leaves."""

import copy
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml
from toy import TOY_MODEL

from itmbench import logs, store
from itmbench.cli.main import main
from itmbench.runner import run as runner

FORK = multiprocessing.get_context("fork")
FILES = {"config.yaml", "result.json", "per_query.parquet", "examples.json", "best.ckpt", "log.txt"}


def write(
    folder: Path, *methods: str, seeds: tuple[int, ...] = (0,), epochs: int = 3, num_workers: int = 0, **failing: Any
) -> Path:
    """A benchmark in which everything is drawn that can be: crops, dropout, order, first weights.

    Methods among ``failing`` fail, with these arguments.
    """
    arguments = copy.deepcopy(TOY_MODEL["init_args"])
    arguments["image"]["init_args"]["train_crop"] = 0.5
    arguments["text"]["init_args"]["dropout"] = 0.2
    spec = {
        "name": "small",
        "datasets": {"toy": "data.yaml"},
        "methods": {name: f"{name}.yaml" for name in methods},
        "seeds": list(seeds),
        "config": {
            "trainer": {
                "max_epochs": epochs,
                "accelerator": "cpu",
                "logger": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
            }
        },
    }
    data: dict[str, Any] = {"class_path": "toy.ToyData", "init_args": {"root": str(folder / "toy"), "copies": 1}}
    data["init_args"]["num_workers"] = num_workers
    (folder / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    for name in methods:
        model = {"class_path": "DualEncoder", "init_args": arguments | failing.get(name, {})}
        model |= {"class_path": "toy_failures.Failing"} if name in failing else {}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"model": model}))
    (folder / "small.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    return folder / "small.yaml"


def start(command: list[str], log: Path, before: Callable[[], None] = lambda: None) -> BaseProcess:
    """A command, or a spec and a results folder, in a process of its own that need not import everything anew."""

    def body() -> None:
        sys.stdout = sys.stderr = log.open("a")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        logs.configure()
        before()
        code = (
            main(command) if command[0] in ("bench", "fit", "tune") else int(bool(runner.run(command[0], command[1])))
        )
        sys.stdout.flush()
        os._exit(code)

    process = FORK.Process(target=body)
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    process.join(120)
    return process.exitcode


def bench(spec: Path, results: Path, *options: str) -> list[str]:
    return ["bench", str(spec), "--results", str(results), *options]


def content(results: Path) -> dict[str, Any]:
    """What cells hold that must not depend on how they were run."""
    cells = {}
    for folder, result in store.results(results):
        name = str(folder.relative_to(results))
        numbers = (result.metrics, result.validation, result.epochs, result.key)
        state = torch.load(folder / store.CHECKPOINT, weights_only=True)["state_dict"]
        weights = {key: value.tolist() for key, value in state.items()}
        files = {path.name for path in folder.iterdir()}
        cells[name] = (files, numbers, (folder / store.PER_QUERY).read_bytes(), weights)
    return cells


def unfinished(results: Path) -> list[Path]:
    """Files of running cells; leases of the dead do not count."""
    return [path for path in (results / store.RUNNING).rglob("*") if path.is_file() and ".lease" not in path.name]


def kill_in(where: Any, name: str, call: int, after: bool) -> None:
    """Replace a function by one that ends the process with its given call, before or after it has done it."""
    real, calls = getattr(where, name), []

    def replaced(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == call and not after:
            if name == "save":  # half a file
                arguments[1].write(b"PK\x03\x04half")
                arguments[1].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(where, name, replaced)
