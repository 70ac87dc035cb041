"""A benchmark's cells, run one after another by as many processes as share its results folder.

What is stored is not run again, what fails does not keep the others from running, and what another process runs is
waited for. docs/benchmarks.md says how.
"""

import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from itmbench import store
from itmbench.errors import InputError, InputErrors
from itmbench.runner.spec import Cell, plan

if TYPE_CHECKING:
    from itmbench.data.corpus import Corpus
    from itmbench.runner.failure import Failure
    from itmbench.runner.lightning import CellCLI

POLL = 2.0
"""Seconds between two looks at cells that other processes run."""
_terminated = threading.Event()
"""Set once SIGTERM has come."""

Launcher = Literal["local", "slurm"]


@dataclass
class Planned:
    """A cell with all that is known of it before it runs.

    Args:
        cell: which one.
        cli: its config and data.
        key: hash of all that can change its result.
        root: the results folder.
        force: it is to run again, and not to go on from what an earlier run has left unfinished.
        retry_failed: it is to run again if it has failed.
        since: when that was asked for; outcomes that are later, whoever had them, count.
    """

    cell: Cell
    cli: "CellCLI"
    key: str
    root: Path
    force: bool = False
    retry_failed: bool = False
    since: str = ""

    @property
    def running(self) -> Path:
        """The folder that it runs in."""
        return self.root / store.RUNNING / self.cell.folder

    def outcome(self) -> "str | Failure | None":
        """When it was finished, or how it failed, whoever ran it; None while it is to run."""
        from itmbench.runner import cell, failure

        finished = cell.finished(self.root / self.cell.folder, self.key)
        if finished is not None and not (self.force and finished < self.since):
            return finished
        failed = failure.recorded(self.running, self.key)
        if failed is not None and not ((self.force or self.retry_failed) and failed.time < self.since):
            return failed
        return None


def run(
    spec: str | Path,
    root: str | Path,
    only: str = "",
    dry_run: bool = False,
    force: bool = False,
    retry_failed: bool = False,
    devices: int = 1,
    launcher: Launcher = "local",
) -> list[Cell]:
    """Run every cell of a benchmark that is not in the store; one that fails does not keep the others from running.

    Args:
        spec: the benchmark file.
        root: the results folder.
        only: as for ``plan``.
        dry_run: say what would run, and stop.
        force: run what is stored, or has failed, as well.
        retry_failed: run what has failed as well.
        devices: how many cells run at a time, a device each.
        launcher: "local": here; "slurm": as jobs that are submitted.

    Returns:
        The cells that failed, now or before; none where nothing was waited for.

    Raises:
        InputError: the benchmark file, configs, or methods and datasets that do not go together; nothing has run then.
        KeyboardInterrupt: the user stopped it (or SIGTERM did); the same call goes on from the last epoch.
    """
    from itmbench.runner import done

    cells, root = plan(spec, only), Path(root)
    if root.exists() and not root.is_dir():
        raise InputError(f"--results {root}: not a folder; name one")
    if not (dry_run or force) and done.recall(cells, root):
        for number, cell in enumerate(cells, 1):
            print(f"[{number}/{len(cells)}] {cell}: done before")
        return []
    since = datetime.now(UTC).isoformat(timespec="microseconds")
    planned, inputs = _resolve(cells, root, force, retry_failed, since, here=launcher == "local" and not dry_run)
    if dry_run:
        from itmbench.runner import forecast

        forecast.show(planned, root)
        return []
    source = done.source(cells, inputs, root) if inputs else None
    here = planned
    left = [each for each in planned if each.outcome() is None]
    if left and (launcher == "slurm" or devices > 1):
        asked: dict[str, Any] = {"spec": str(spec), "root": str(root), "only": only}
        asked |= {"force": force, "retry_failed": retry_failed, "since": since}
        if launcher == "slurm":
            _submit(asked, left, devices)
            return []
        _run_side_by_side(asked, left, devices)
        here = [each for each in left if each.outcome() is None]  # what a runner that was killed has left
    with _terminated_as_interrupted():
        _run_all(here)
    failed = [(each, found) for each in planned if not isinstance(found := each.outcome(), str | None)]
    for each, failure in failed:
        print(f"FAILED {each.cell}: {failure.error}; see {each.running}", file=sys.stderr)
        if failure.advice:
            print(f"  {failure.advice}", file=sys.stderr)
    if failed:
        print("  --retry-failed tries them again; so does any change that gives them another key", file=sys.stderr)
    elif source:
        done.remember(cells, [each.key for each in planned], source, root)
    return [each.cell for each, _ in failed]


def work(spec: str, root: str, only: str, force: bool, retry_failed: bool, since: str) -> None:
    """What one of several runners does: the cells that it finds, until nothing is left that no other runs.

    Args:
        spec: as for ``run``; so are the next four.
        root: the results folder.
        only: which cells.
        force: run what was stored, or had failed, as well.
        retry_failed: run what had failed as well.
        since: when that was asked for; ISO 8601, UTC.
    """
    planned, _ = _resolve(plan(spec, only), Path(root), force, retry_failed, since)
    with _terminated_as_interrupted():
        _run_all(planned, alone=False)


def _run_side_by_side(asked: dict[str, Any], left: list[Planned], devices: int) -> None:
    """Cells by so many runners on this machine; with no outcome is left what a runner has left that was killed.

    Raises:
        InputError: there are not as many devices, or cells want several each.
    """
    import torch

    from itmbench.runner import workers

    for each in left:
        if str(each.cli.config.trainer.devices) != "1":
            raise InputError(
                f"--devices {devices} gives each cell one device, but {each.cell} has trainer.devices "
                f"{each.cli.config.trainer.devices}; give one of the two"
            )
    gpus = torch.cuda.device_count() if any(_wants_gpu(each) for each in left) else 0
    with _terminated_as_interrupted():
        workers.run_here(asked, min(devices, len(left)), gpus)


def _submit(asked: dict[str, Any], left: list[Planned], devices: int) -> None:
    """Cells by so many jobs, each with as many devices as a cell wants."""
    from itmbench.runner import workers

    of_a_cell = max(each.cli.devices for each in left)
    gpus = of_a_cell if any(_wants_gpu(each) for each in left) else 0
    count = min(devices, len(left))
    loaders = max(each.cli.data.num_workers for each in left)
    job = workers.submit(asked, left[0].cell.benchmark, count, gpus, cpus=of_a_cell * (1 + loaders))
    print(f"job {job}: {count} runners for {len(left)} cells; the same command with --dry-run says how far they are")


def _wants_gpu(each: Planned) -> bool:
    return bool(each.cli.config.trainer.accelerator != "cpu")


def _run_all(planned: list[Planned], alone: bool = True) -> None:
    """Every cell that has no outcome, and then those that others were running, until all have one.

    Args:
        planned: the cells.
        alone: else others show what they do, and whoever has started them waits for them.
    """
    from itmbench.runner import failure, lease

    waiting = list(enumerate(planned, 1))
    said = False
    while waiting:
        taken = []
        for number, each in waiting:
            title = f"[{number}/{len(planned)}] {each.cell}: "
            held = None if each.outcome() else lease.take(each.running)
            if held is None and each.outcome() is None:
                taken.append((number, each))
                continue
            try:
                # Looked at again: it may have been finished between the look and the lease.
                if held is not None and each.outcome() is None:
                    print(title, end="", flush=True)
                    _run_one(each, held)
                elif not alone:
                    continue
                elif isinstance(found := each.outcome(), failure.Failure):
                    print(f"{title}failed before: {found.error}", flush=True)
                else:
                    print(f"{title}done before", flush=True)
            except lease.Lost as error:
                print(f"    another process has taken it over ({error})", flush=True)
                taken.append((number, each))
                continue
            finally:
                if held is not None:
                    held.release()
        if len(taken) == len(waiting):
            if not alone:
                return
            if not said:
                for _, each in taken:
                    print(f"waiting for {each.cell}: run by {lease.holder(each.running) or 'another'}", flush=True)
            said = True
            time.sleep(POLL)
        else:
            said = False
        waiting = taken


def _run_one(each: Planned, held: Any) -> None:
    """Run a cell that this process holds, and write down how it fails."""
    from itmbench.runner import failure, tracker
    from itmbench.runner.cell import run_cell
    from itmbench.runner.lease import Lost

    if each.force:
        shutil.rmtree(each.running, ignore_errors=True)
    try:
        run_cell(each.cell, each.cli, each.root, each.key, held)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None
    except Lost:
        tracker.abandon()
        raise
    except Exception as error:
        tracker.abandon()
        # Schedulers send SIGTERM to loader processes, too, and that one has died may be noticed first.
        if _terminated.is_set() or ("killed by signal: Terminated" in str(error) and _terminated.wait(POLL)):
            raise KeyboardInterrupt from error
        recorded = failure.recorded(each.running, each.key) if isinstance(error, failure.Recorded) else None
        recorded = recorded or failure.record(each.running, each.key, error)
        print(f"failed: {recorded.error}", flush=True)
    _free_memory()


def _free_memory() -> None:
    """Give back what the model of the last cell held: cycles keep it, on the GPU too, until they are collected."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which schedulers send, does what Ctrl-C does; in this process, not in those that it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def stop(number: int, frame: object) -> None:
        if os.getpid() != process:
            os._exit(128 + number)
        _terminated.set()
        raise KeyboardInterrupt

    _terminated.clear()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _resolve(
    cells: list[Cell], root: Path, force: bool, retry_failed: bool, since: str, here: bool = True
) -> tuple[list[Planned], list[Path]]:
    """Every cell with its config, data and key; all that is wrong is told at once, before anything runs.

    Devices are looked for only where they are to run ``here``.

    Also all files and folders that the data were read from; none if there are data of which that is not known.
    """
    from itmbench.data.cache import inputs_read
    from itmbench.runner.checks import require_valid_pair
    from itmbench.runner.key import cell_key
    from itmbench.runner.lightning import CellCLI
    from itmbench.runner.progress import quiet

    resolved: list[Planned] = []
    wrong: list[str] = []
    corpora: dict[str, Corpus] = {}  # cells of one dataset share it
    inputs: dict[str, list[Path]] = {}
    checked = set()
    with quiet():
        for cell in cells:
            try:
                cli = CellCLI(cell.config)
                config = cli.resolved()
                data = json.dumps(config["data"], sort_keys=True)
                try:
                    if data not in corpora:
                        with inputs_read() as inputs[data]:
                            corpora[data] = cli.data.corpus
                except InputError as error:
                    wrong.append(f"{cell.dataset}: {error}")
                    continue
                cli.data = cli.data.with_corpus(corpora[data])
                each = Planned(cell, cli, cell_key(config, cli.data.corpus), root, force, retry_failed, since)
                if each.outcome() is None and (cell.dataset, cell.method) not in checked:
                    checked.add((cell.dataset, cell.method))
                    if here:
                        cli.check_devices()
                    require_valid_pair(cli.make_model(), cli.data, cli.devices)
                resolved.append(each)
            except InputError as error:
                wrong.append(f"{cell.method} on {cell.dataset}: {error}")
    if wrong:
        raise InputErrors(list(dict.fromkeys(wrong)))
    return resolved, [path for read in inputs.values() for path in read] if all(inputs.values()) else []
