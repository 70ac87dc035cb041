"""The sweep: the cells of a benchmark, run by as many processes as share the results folder.

Finished cells are skipped, a failed cell does not stop the others, and cells that another process runs are waited for
(docs/benchmarks.md).
"""

import errno
import gc
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch

from itmbench import interruption, logs, store
from itmbench.errors import InputError, is_full
from itmbench.runner import cell, lease, plan, processes, running, tracker
from itmbench.runner.lease import Lease
from itmbench.runner.plan import Planned, Planner, Request
from itmbench.runner.running import Failure
from itmbench.runner.spec import Cell
from itmbench.runner.tuned import cells_to_run

logger = logging.getLogger(__name__)

POLL = 2.0
"""Seconds between two checks of the cells that other processes run."""


def run(
    spec: str | Path,
    results: str | Path,
    only: str = "",
    dry_run: bool = False,
    force: bool = False,
    retry_failed: bool = False,
    devices: int = 1,
    launcher: Literal["local", "slurm"] = "local",
) -> list[Cell]:
    """Run every cell of a benchmark that has no result yet.

    Args:
        spec: the benchmark file, or the name of a packaged one.
        results: the results folder.
        only: keep the cells that these comma-separated pairs name, such as ``method=scan,seed=0``; pairs with the same
            key mean either value.
        dry_run: print what would run, and stop.
        force: run finished and failed cells as well.
        retry_failed: run failed cells as well.
        devices: number of cells to run at a time, one device each.
        launcher: "local" runs them here, "slurm" submits jobs and returns.

    Returns:
        The cells that failed, now or before; empty if jobs were submitted.

    Raises:
        InputError: the benchmark file or a config is wrong, or a method does not suit a dataset; nothing has run.
        OSError: a disk is full; the same call runs what is left.
        KeyboardInterrupt: the user or SIGTERM interrupted it; the same call resumes after the last finished epoch.
    """
    if devices < 1 or launcher not in ("local", "slurm"):
        raise InputError(f"run: devices {devices}, launcher {launcher!r}; give 1 or more, and local or slurm")
    cells = cells_to_run(spec, only, Path(results))
    request = Request.now(Path(results), force, retry_failed)
    if request.results.exists() and not request.results.is_dir():
        raise InputError(f"--results {results}: not a folder; name one")
    planner = Planner()
    planned = planner.plan(cells, request, check_devices=launcher == "local" and not dry_run)
    if dry_run:
        plan.print_forecast(planned, request)
        return []
    left = [row for row in planned if request.outcome(row) is None]
    _require_free(left, request)
    if left and launcher == "local" and devices > 1:
        _require_one_device_each(left, devices)
    try:
        path = planner.save(cells, planned, request.results)
    except (InputError, OSError):
        if left:
            raise
    here = planned
    if left and (launcher == "slurm" or devices > 1):
        count, wants_gpu = min(devices, len(left)), any(row.wants_gpu for row in left)
        options = {"plan": str(path), **asdict(request), "results": str(results), "verbosity": logs.verbosity()}
        options["runners"] = 1 if launcher == "slurm" else count
        arguments = ["runner", json.dumps(options)]
        if launcher == "slurm":
            per_cell = max(row.devices for row in left)
            cpus = per_cell * max((row.cell.config["threads"] or 1) + row.loaders for row in left)
            log_folder = request.results / store.RUNNING
            name, gpus = cells[0].benchmark, per_cell if wants_gpu else 0
            job = processes.submit(arguments, name, count, gpus, cpus, log_folder)
            message = "job %s: %d runners for %d cells; the same command with --dry-run shows progress"
            logger.info(message, job, count, len(left))
            return []
        with interruptible():
            processes.run_side_by_side(arguments, count, torch.cuda.device_count() if wants_gpu else 0)
        here = [row for row in left if request.outcome(row) is None]  # cells of runners that were killed
    with interruptible():
        run_cells(here, planner, request)
    return _report_failures(planned, request)


def run_cells(planned: Sequence[Planned], planner: Planner, request: Request, wait: bool = True) -> None:
    """Run all cells without an outcome; ``wait`` for those that other processes run, until they have one."""
    waiting = list(enumerate(planned, 1))
    announced = False
    while waiting:
        taken = []
        for number, row in waiting:
            interruption.require_none()
            title = f"[{number}/{len(planned)}] {row.cell}"
            folder = request.running(row.cell)
            held = None if request.outcome(row) else lease.take(folder)
            if held is None and request.outcome(row) is None:
                taken.append((number, row))
                continue
            try:
                # Another process may have finished it between the first look and the lease.
                if held is not None and request.outcome(row) is None:
                    logger.info("%s: running", title)
                    _run_cell(row, planner, request, held)
                    free_memory()
                elif wait and isinstance(outcome := request.outcome(row), Failure):
                    logger.info("%s: failed before: %s", title, outcome.error)
                elif wait:
                    logger.info("%s: done before", title)
            except lease.Lost as error:
                logger.warning("    another process has taken it over (%s)", error)
                taken.append((number, row))
            finally:
                if held is not None:
                    held.release()
        if len(taken) == len(waiting):
            if not wait:
                return
            if not announced:
                for _, row in taken:
                    holder = lease.holder(request.running(row.cell)) or "another process"
                    logger.info("waiting for %s: run by %s", row.cell, holder)
            announced = True
            time.sleep(POLL)
        else:
            announced = False
        waiting = taken
    interruption.require_none()


def _run_cell(planned: Planned, planner: Planner, request: Request, held: Lease) -> None:
    """Run a cell that this process holds, and record its failure, unless a disk is full."""
    folder = request.running(planned.cell)
    if request.force:
        shutil.rmtree(folder, ignore_errors=True)
    threads = torch.get_num_threads()
    try:
        running.start(folder, planned.key)
        if running.finished_at(folder, planned.key) is None:  # else it was killed before its folder was moved
            with logs.to_file(folder / store.LOG), logs.quiet():
                cli = planner.open(planned)
                (folder / store.CONFIG).write_text(cli.dump(), encoding="utf-8")
                if planned.devices > 1:
                    _run_ranks(planned, folder, held)
                else:
                    cell.train_and_test(planned.cell, cli, folder, planned.key, held)
        held.check(on_disk=True)
        running.finish(folder, request.results / planned.cell.folder)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except lease.Lost:
        tracker.abandon()
        raise
    except Exception as error:
        tracker.abandon()
        if is_interruption(error):
            raise KeyboardInterrupt from error
        held.check(on_disk=True)  # else the folder, and what failed in it, is another process's
        if is_full(error):  # says nothing of the cell: the next call runs it again
            raise
        # A process of one of several devices may have recorded why it failed.
        failure = running.recorded_failure(folder, planned.key) or running.record_failure(folder, planned.key, error)
        logger.error("    failed: %s", failure.error)
    finally:
        torch.set_num_threads(threads)  # those of a notebook that runs a benchmark


def is_interruption(error: Exception) -> bool:
    """Whether a signal is behind an exception.

    Schedulers send SIGTERM to loader processes as well, and the death of one may be noticed first.
    """
    return interruption.arrived(POLL if "killed by signal: Terminated" in str(error) else 0)


def _run_ranks(planned: Planned, folder: Path, held: Lease) -> None:
    """Train and test a cell in a worker, from which Lightning starts the processes of further devices.

    Lightning starts them by calling the program again with the same arguments, so the benchmark itself cannot be that
    program: each of its copies would take another cell.
    """
    options = {"folder": str(folder), **asdict(planned), "verbosity": logs.verbosity()}
    child = processes.Child(["rank", json.dumps(options)])
    try:
        status = child.wait(held.check)
    finally:
        child.kill()  # at once: an interrupted cell must not record a failure
    if running.finished_at(folder, planned.key) is not None:
        return
    if (folder / running.FULL).exists():
        raise OSError(errno.ENOSPC, "a disk is full", str(folder))
    how = f"was killed by signal: {signal.strsignal(-status)}" if status < 0 else f"ended with exit code {status}"
    raise RuntimeError(f"a process {how} before there was a result; its output is in {folder / store.LOG}")


def _require_one_device_each(left: Sequence[Planned], devices: int) -> None:
    """Raise an InputError if a cell that runs beside others wants several devices."""
    for row in left:
        if row.devices > 1:
            raise InputError(
                f"--devices {devices} gives each cell one device, but {row.cell} has trainer.devices "
                f"{row.cell.config['trainer']['devices']}; give one of the two"
            )


def _require_free(left: Sequence[Planned], request: Request) -> None:
    """Raise an InputError if a file lies where the folder of a cell, or one above it, belongs."""
    for row in left:
        for place in (request.results / row.cell.folder, request.running(row.cell)):
            for path in (place, *place.parents):
                if os.path.lexists(path) and not path.is_dir():
                    raise InputError(f"{path}: is a file where results of {row.cell} belong; move it away")


def _report_failures(planned: Sequence[Planned], request: Request) -> list[Cell]:
    """Log every failure with its advice; return the cells."""
    failures = [(row.cell, outcome) for row in planned if isinstance(outcome := request.outcome(row), Failure)]
    for failed, failure in failures:
        advice = f"\n  {failure.advice}" if failure.advice else ""
        logger.error("FAILED %s: %s; see %s%s", failed, failure.error, request.running(failed), advice)
    if failures:
        logger.error("  --retry-failed runs them again; so does any change that gives them another key")
    return [failed for failed, _ in failures]


def free_memory() -> None:
    """Release the model of the last cell: reference cycles keep it, on the GPU too, until they are collected."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def interruptible() -> AbstractContextManager[None]:
    """While it lasts, Ctrl-C and SIGTERM, which schedulers send, interrupt this process, but not its children."""
    return interruption.watched(signal.SIGINT, signal.SIGTERM)
