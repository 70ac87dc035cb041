"""Planning: every cell resolved, checked and given its key before anything runs; and the forecast of a dry run."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from statistics import fmean

from itmbench import logs, store
from itmbench.data.cache import inputs_read
from itmbench.data.corpus import Corpus
from itmbench.data.datamodule import CorpusDataModule
from itmbench.errors import InputError, InputErrors, is_full
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol
from itmbench.files import digest, write_atomically
from itmbench.methods.base import Matcher
from itmbench.runner import done, lease, running, tracker
from itmbench.runner.cell_cli import CellCLI
from itmbench.runner.key import cell_key
from itmbench.runner.running import Failure
from itmbench.runner.spec import Cell, Config
from itmbench.units import duration


@dataclass(frozen=True)
class Planned:
    """A cell that can run."""

    cell: Cell  # with every default in its config
    key: str  # hash of everything that can change its result
    devices: int  # number of devices that it trains on
    loaders: int  # number of loader processes on each device

    @property
    def wants_gpu(self) -> bool:
        """Whether it runs on a GPU where there is one."""
        return bool(self.cell.config["trainer"]["accelerator"] != "cpu")


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    results: Path  # the results folder
    force: bool = False  # run finished and failed cells as well
    retry_failed: bool = False  # run failed cells as well
    since: str = ""  # time of the request, ISO 8601, UTC; later outcomes count, whichever process they come from

    @staticmethod
    def now(results: Path, force: bool, retry_failed: bool) -> "Request":
        """A request of this moment."""
        return Request(results, force, retry_failed, datetime.now(UTC).isoformat(timespec="microseconds"))

    def running(self, cell: Cell) -> Path:
        """The folder that a cell runs in."""
        return self.results / store.RUNNING / cell.folder

    def outcome(self, planned: Planned) -> str | Failure | None:
        """When a cell finished, or how it failed, in whichever process; None if it still has to run."""
        finished = running.finished_at(self.results / planned.cell.folder, planned.key)
        if finished is not None and not (self.force and not self._follows(finished)):
            return finished
        failed = running.recorded_failure(self.running(planned.cell), planned.key)
        if failed is not None and not ((self.force or self.retry_failed) and not self._follows(failed.time)):
            return failed
        return None

    def _follows(self, time: str) -> bool:
        """Whether an outcome belongs to this request; a time far in the future comes from a wrong clock."""
        latest = datetime.now(UTC) + timedelta(days=1)
        return self.since <= time <= latest.isoformat(timespec="microseconds")


class Planner:
    """Plans cells, and opens planned ones; cells of the same dataset share its corpus.

    Args:
        runners: programs on this machine that share its processors.
    """

    def __init__(self, runners: int = 1) -> None:
        self._runners = runners
        self._corpora: dict[str, Corpus] = {}
        self._inputs: list[Path] | None = []

    def plan(self, cells: Sequence[Cell], request: Request, check_devices: bool) -> list[Planned]:
        """Resolve all cells, and check those that the request has to run; ``check_devices`` if they run here.

        Raises:
            InputErrors: everything that is wrong, one line each.
        """
        planned: list[Planned] = []
        wrong: list[tuple[str, str]] = []
        with logs.quiet():
            for (dataset, method), group in groupby(cells, lambda cell: (cell.dataset, cell.method)):
                seeds = list(group)
                try:
                    cli = CellCLI(seeds[0].config)
                    config = cli.resolved()
                    try:
                        self._share_corpus(cli, config)
                    except InputError as error:
                        wrong.append((dataset, str(error)))
                        continue
                    rows = [_planned(cell, cli, config) for cell in seeds]
                    if any(request.outcome(row) is None for row in rows):
                        tracker.require_settings(cli.config)
                        require_valid_pair(cli.require_sound(check_devices), cli.data, cli.devices)
                    planned += rows
                except InputError as error:
                    wrong.append((f"{method} on {dataset}", str(error)))
        require_nothing_wrong(wrong)
        return planned

    def save(self, cells: Sequence[Cell], planned: Sequence[Planned], results: Path) -> Path:
        """Save a plan, for runners to load and for `itmbench.runner.done`.

        Raises:
            InputError: the results folder cannot be written.
            OSError: its disk is full.
        """
        path = done.plan_path(cells, results)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            source = None if self._inputs is None else done.source(cells, self._inputs, path)
            inputs = [str(path) for path in self._inputs or []]
            content = {"source": source, "inputs": inputs, "cells": [asdict(row) for row in planned]}
            write_atomically(path, json.dumps(content, default=str))
        except OSError as error:
            if is_full(error):
                raise
            raise InputError(f"{results}: cannot be written ({error.strerror}); name another with --results") from None
        return path

    def open(self, planned: Planned) -> CellCLI:
        """The parsed config of a planned cell, with its data; a RuntimeError if code or data have changed since."""
        cli = CellCLI(planned.cell.config)
        config = cli.resolved()
        self._share_corpus(cli, config)
        if _key(config, cli.data.corpus, planned.cell.trials) != planned.key:
            raise RuntimeError("code or data have changed since this benchmark began; start it again")
        return cli

    def _share_corpus(self, cli: CellCLI, config: Config) -> None:
        name = json.dumps(config["data"], sort_keys=True)
        if name not in self._corpora:
            with inputs_read() as inputs:
                self._corpora[name] = cli.data.corpus
            # A dataset that does not report its files can change without notice.
            self._inputs = [*self._inputs, *inputs] if self._inputs is not None and inputs else None
        cli.data = cli.data.with_corpus(self._corpora[name])
        cli.data.runners = self._runners


def require_nothing_wrong(wrong: Sequence[tuple[str, str]]) -> None:
    """Raise InputErrors if there are messages, each once, with the first place where it arises."""
    places: dict[str, dict[str, None]] = {}
    for place, message in wrong:
        places.setdefault(message, {})[place] = None
    if wrong:
        more = {message: f" and {len(where) - 1} more" if len(where) > 1 else "" for message, where in places.items()}
        raise InputErrors([f"{next(iter(where))}{more[message]}: {message}" for message, where in places.items()])


def require_valid_pair(model: Matcher, data: CorpusDataModule, devices: int = 1) -> None:
    """Check that an untrained method can be trained on a dataset with this number of devices, and evaluated.

    Raises:
        InputError: the method, an encoder, the dataset or the protocol does not suit the others.
    """
    model.adapt(data.corpus)
    data.training_texts(devices)
    if isinstance(model.protocol, LabelProtocol) and data.corpus.labels is None:
        raise InputError(f"{data.corpus.name}: has no labels, which the protocol {model.protocol.name} needs")
    if isinstance(model.protocol, CaptionProtocol):
        model.protocol.check_folds(len(data.corpus.stages["test"].images))


def load(path: Path) -> list[Planned]:
    """The cells of a saved plan."""
    cells = json.loads(path.read_bytes())["cells"]
    return [Planned(**{**row, "cell": Cell(**row["cell"])}) for row in cells]


def print_forecast(planned: Sequence[Planned], request: Request) -> None:
    """Print the key and state of every cell, and how long the rest may take."""
    results = [result for _, result in store.results(request.results)] if request.results.is_dir() else []
    left: list[float | None] = []
    for number, row in enumerate(planned, 1):
        outcome = request.outcome(row)
        if isinstance(outcome, Failure):
            state = f"failed before ({outcome.error}); --retry-failed runs it again"
        elif outcome:
            state = "done before"
        else:
            folder = request.running(row.cell)
            epochs = row.cell.config["trainer"].get("max_epochs")
            trained = 0 if request.force else running.epochs_done(folder, row.key)
            seconds = expected_seconds(row.cell, results)
            if seconds is not None and trained and epochs:
                seconds *= max(0.0, 1 - trained / epochs)
            left.append(seconds)
            state = f"resumes after epoch {trained} of {epochs}" if trained else "to run"
            state += f", {_about([seconds])}"
            if holder := lease.holder(folder):
                state = f"running ({holder})"
        print(f"[{number}/{len(planned)}] {row.key}  {row.cell}: {state}")
    unknown = sum(seconds is None for seconds in left)
    without = f"; no estimate for {unknown}, because nothing like them has finished" if unknown else ""
    print(f"{len(left)} of {len(planned)} cells left{f': {_about(left)}{without}' if left else ''}")


def expected_seconds(cell: Cell, results: Iterable[store.Result]) -> float | None:
    """Mean time of finished cells of the same dataset: of the same method if there are any, else of all methods."""
    same_dataset = [row for row in results if (row.benchmark, row.dataset) == (cell.benchmark, cell.dataset)]
    same_method = [row for row in same_dataset if row.method == cell.method]
    return fmean(row.seconds for row in same_method or same_dataset) if same_dataset else None


def _about(seconds: Sequence[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    return f"about {duration(sum(known))}" if known or not seconds else "time unknown"


def _planned(cell: Cell, cli: CellCLI, config: Config) -> Planned:
    """A cell whose config, with all defaults, differs from ``config`` in the seed only."""
    config = {**config, "seed_everything": cell.seed}
    key = _key(config, cli.data.corpus, cell.trials)
    return Planned(replace(cell, config=config), key, cli.devices, cli.data.loaders())


def _key(config: Config, corpus: Corpus, trials: int) -> str:
    """The key of a cell; one that was tuned is another, even if the search chose the options that it had before."""
    key = cell_key(config, corpus)
    return digest(key, f"{trials} trials") if trials else key
