"""The search for the options of every method of a benchmark, with the same number of trials each (docs/tuning.md).

A study searches the options of one method on one dataset, trial after trial; studies run side by side. A trial trains
as a cell does and is measured on validation: nothing here tests. Only finished trials are stored, and the options of
the next follow from these and its number, so an interrupted trial is proposed again and resumes.
"""

import errno
import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages._rdb.models import BaseModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from itmbench import interruption, logs, store
from itmbench.data.batches import derived_seed
from itmbench.errors import InputError, is_full
from itmbench.files import file_digest, real_path, write_atomically
from itmbench.runner import cost, lease, processes, run, running
from itmbench.runner.callbacks import CheckLease
from itmbench.runner.cell import train
from itmbench.runner.cell_cli import CellCLI
from itmbench.runner.lease import Lease
from itmbench.runner.plan import Planned, Planner, Request, require_nothing_wrong
from itmbench.runner.space import Range, nested
from itmbench.runner.spec import Cell, merge
from itmbench.runner.tuned import Tuned, cells_to_tune, is_finished, place, study_key
from itmbench.units import duration

RANDOM_TRIALS = 5
"""Trials that are drawn at random before the sampler follows the better ones."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """The search for the options of one method on one dataset."""

    cell: Cell  # the method's own config, with the seed of all trials
    planned: Planned  # the same with all defaults: trial 0
    knobs: dict[str, Range]  # dotted path of an option -> its values
    trials: int  # how many it is to have
    results: Path  # the results folder

    @property
    def key(self) -> str:
        """Names the trials that belong together in the storage."""
        return study_key(self.planned.key, self.knobs)

    @property
    def folder(self) -> Path:
        """Where its trials train, one after the other."""
        return self.results / store.RUNNING / ".tuning" / self.cell.dataset / self.cell.method

    @property
    def is_done(self) -> bool:
        """Whether it had all its trials, and its choice is written."""
        return is_finished(self.cell, self.results, self.key, self.trials)

    def __str__(self) -> str:
        return f"{self.cell.method} on {self.cell.dataset}"


def tune(spec: str | Path, results: str | Path, trials: int, only: str = "", devices: int = 1) -> list[Study]:
    """Search the options of every method of a benchmark on each of its datasets, and write the choices.

    Args:
        spec: the benchmark file, or the name of a packaged one.
        results: the results folder.
        trials: of each method and dataset, its own config included.
        only: keep methods and datasets that match, such as ``method=scan``.
        devices: number of studies to run at a time, one device each.

    Returns:
        The studies in which every trial failed.

    Raises:
        InputError: the benchmark file, a config or an option to tune is wrong; nothing has run.
        KeyboardInterrupt: the user or SIGTERM interrupted it; the same call resumes after the last finished epoch.
    """
    planner = Planner()
    studies = plan(spec, Path(results), trials, only, planner)
    planner.save([study.cell for study in studies], [study.planned for study in studies], Path(results))
    left = [study for study in studies if not study.is_done]
    for study in left:
        _require_place(study)
    with run.interruptible():
        if devices > 1 and len(left) > 1:
            options = {"spec": str(spec), "results": str(results), "trials": trials, "only": only}
            arguments = ["tuner", json.dumps(options | {"verbosity": logs.verbosity()})]
            gpus = torch.cuda.device_count() if any(study.planned.wants_gpu for study in left) else 0
            processes.run_side_by_side(arguments, min(devices, len(left)), gpus)
        search_all(left, planner)
    return [study for study in studies if not study.is_done]


def plan(spec: str | Path, results: Path, trials: int, only: str, planner: Planner) -> list[Study]:
    """The studies of a benchmark, checked; InputErrors name everything that is wrong."""
    cells = cells_to_tune(spec, only)
    planned = planner.plan([cell for cell, _ in cells], Request.now(results, False, False), check_devices=True)
    wrong = []
    for (cell, knobs), row in zip(cells, planned, strict=True):
        pair = f"{cell.method} on {cell.dataset}"
        if row.devices > 1:
            wrong.append((pair, f"trainer.devices {row.devices}; a trial trains on one device"))
        try:
            require_options(cell, knobs)
        except InputError as error:
            wrong.append((pair, f"tune: {error}"))
    require_nothing_wrong(wrong)
    return [Study(cell, row, knobs, trials, results) for (cell, knobs), row in zip(cells, planned, strict=True)]


def require_options(cell: Cell, knobs: dict[str, Range]) -> None:
    """Check that the config of a cell takes all choices and limits of its options to tune; raise an InputError."""
    for number in range(max([knob.examples for knob in knobs.values()], default=0)):
        CellCLI(merge(cell.config, nested({name: knob.example(number) for name, knob in knobs.items()})))


TABLES = {"studies", "trials", "trial_params", "trial_user_attributes", "trial_values"}
"""Of Optuna's storage; it would silently create those that are missing."""


def _require_place(study: Study) -> None:
    """Create the folder of the outcome; raise an InputError if another file lies there."""
    folder, table = (place(study.cell, study.results, suffix) for suffix in ("", ".csv"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder.parent}: cannot be a folder ({error.strerror}); remove the file in its way"
        ) from None
    if table.is_dir():
        raise InputError(f"{table}: is a folder; remove it")


@contextmanager
def _undamaged(database: Path) -> Iterator[None]:
    """Check a storage of trials, and turn what fails when it is used into an InputError, or an OSError."""
    try:
        if database.exists():
            with closing(sqlite3.connect(database)) as connection:
                tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
                known = tables if tables <= set(BaseModel.metadata.tables) else ()
                rows = [connection.execute(f"select 1 from {name}").fetchone() for name in known]  # noqa: S608
            if known and not any(rows):
                database.unlink()  # what was ended while it was made holds nothing
            elif not tables >= TABLES:
                raise sqlite3.DatabaseError(f"no table {min(TABLES - tables)}")
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, sqlite3.Error) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        if "disk is full" in reason or "disk I/O" in reason:
            raise OSError(errno.ENOSPC, reason, str(database)) from None
        raise InputError(
            f"{database}: cannot be used as storage of trials ({reason}); remove it, and all trials run again"
        ) from None


def search_all(studies: Sequence[Study], planner: Planner, wait: bool = True) -> None:
    """Finish all studies; ``wait`` for those that other processes run."""
    waiting = list(studies)
    while waiting:
        taken = []
        for study in waiting:
            interruption.require_none()
            held = lease.take(study.folder)
            if held is None:
                taken.append(study)
                continue
            try:
                if not study.is_done:  # by another process
                    _search(study, planner, held)
            except lease.Lost as error:
                logger.warning("%s: another process has taken it over (%s)", study, error)
                taken.append(study)
            finally:
                held.release()
        if len(taken) == len(waiting):
            if not wait:
                return
            time.sleep(run.POLL)
        waiting = taken
    interruption.require_none()


def _search(study: Study, planner: Planner, held: Lease) -> None:
    """Run the trials that a study lacks, and write its table and its choice."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = real_path(place(study.cell, study.results, ".db"))
    with _undamaged(database):
        storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
        saved = optuna.create_study(storage=storage, study_name=study.key, direction="maximize", load_if_exists=True)
        while len(saved.trials) < study.trials:
            number = len(saved.trials)
            trial = _run_trial(study, saved.trials, planner, held)
            saved.add_trial(trial)
            outcome = trial.user_attrs.get("error") or f"{trial.value:.4f}"
            took = duration(trial.user_attrs["seconds"])
            logger.info("%s: %s, %s", _title(study, number, trial.params), outcome, took)
        _write(study, saved.trials)
        storage.remove_session()
    shutil.rmtree(study.folder, ignore_errors=True)


def _title(study: Study, number: int, params: dict[str, Any]) -> str:
    """A trial in messages: its number, and its options."""
    values = ((name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in params.items())
    options = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in values)
    return f"[{number + 1}/{study.trials}] {study}, {options or 'its own config'}"


def _run_trial(study: Study, before: Sequence[FrozenTrial], planner: Planner, held: Lease) -> FrozenTrial:
    """Train and validate with the next options; options that were tried before are not trained again."""
    distributions = {name: _distribution(knob) for name, knob in study.knobs.items()} if before else {}
    params = propose(distributions, before, study.cell.seed)
    options = {name: _value(study.knobs[name], value) for name, value in params.items()}
    cell = replace(study.cell, config=merge(study.cell.config, nested(options)))
    about: dict[str, Any] = {"config": nested(options)}

    def finished(state: TrialState, value: float | None = None, **more: Any) -> FrozenTrial:
        return optuna.trial.create_trial(
            state=state, value=value, params=params, distributions=distributions, user_attrs=about | more
        )

    meter = cost.Meter()
    try:
        [row] = planner.plan([cell], Request.now(study.results, False, False), check_devices=False)
        about["key"] = row.key
        for trial in before:
            if trial.state == TrialState.COMPLETE and trial.user_attrs["key"] == row.key:
                return finished(TrialState.COMPLETE, trial.value, seconds=0.0)
        logger.info("%s: running", _title(study, len(before), params))
        running.start(study.folder, row.key)
        with logs.to_file(study.folder / store.LOG), logs.quiet():
            *_, value = train(planner.open(row), study.folder, [meter, CheckLease(held)])
        held.check(on_disk=True)
        return finished(TrialState.COMPLETE, value, seconds=meter.elapsed())
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except lease.Lost:
        raise
    except Exception as error:
        if _is_disk_error(error, study.results):  # says nothing about the options: the next call tries them again
            raise
        if run.is_interruption(error):
            raise KeyboardInterrupt from error
        held.check(on_disk=True)  # else another process runs this trial
        message = " ".join(str(error).split())
        return finished(TrialState.FAIL, seconds=meter.elapsed(), error=f"{type(error).__name__}: {message}")
    finally:
        run.free_memory()


def _is_disk_error(error: Exception, results: Path) -> bool:
    """Whether an error says that a disk is full, or that a file in the results folder cannot be used."""
    named = error.filename if isinstance(error, OSError) and isinstance(error.filename, str) else None
    return is_full(error) or (named is not None and real_path(named).is_relative_to(real_path(results)))


def propose(distributions: dict[str, BaseDistribution], before: Sequence[FrozenTrial], seed: int) -> dict[str, Any]:
    """The options of the next trial: a function of the trials before it and the seed, whichever process asks."""
    seed = derived_seed(seed, len(before)) % 2**32
    sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(before)
    return study.ask(distributions).params


def _distribution(knob: Range) -> BaseDistribution:
    if knob.choices is not None:
        return CategoricalDistribution([json.dumps(choice) for choice in knob.choices])  # takes no mappings
    if isinstance(knob.low, int) and isinstance(knob.high, int):
        return IntDistribution(knob.low, knob.high, log=knob.log)
    assert knob.low is not None and knob.high is not None
    return FloatDistribution(knob.low, knob.high, log=knob.log)


def _value(knob: Range, value: Any) -> Any:
    return value if knob.choices is None else json.loads(value)


def _write(study: Study, trials: Sequence[FrozenTrial]) -> None:
    """Write the table of all trials, and the choice unless all of them failed."""
    rows = [
        {
            "trial": number,
            **{name: trial.params.get(name, "its own") for name in study.knobs},
            "objective": trial.value,
            "minutes": round(trial.user_attrs["seconds"] / 60, 2),
            "error": trial.user_attrs.get("error"),
        }
        for number, trial in enumerate(trials)
    ]
    table = place(study.cell, study.results, ".csv")
    write_atomically(table, pd.DataFrame(rows).to_csv(index=False))
    complete = [(trial.value, -number) for number, trial in enumerate(trials) if trial.value is not None]
    if not complete:
        logger.error("FAILED %s: every trial failed, the first with %s", study, trials[0].user_attrs["error"])
        return
    objective, negative = max(complete)  # the first of equals, so that the method's own config wins
    config = trials[-negative].user_attrs["config"]
    chosen = Tuned(study.key, len(trials), -negative, objective, study.cell.benchmark, config, table=file_digest(table))
    chosen.save(study.cell, study.results)
