"""The program of the processes that `itmbench.runner.processes` starts: one of several runners, or a rank of one cell.

``python -m itmbench.runner.worker runner OPTIONS [--child]`` takes cells of a saved plan until none is left that no
other process runs; ``tuner OPTIONS [--child]`` does the same with the studies of a benchmark; ``rank OPTIONS`` trains
and tests one cell, together with the processes of its other devices. OPTIONS are JSON.
"""

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from itmbench import logs
from itmbench.errors import InputError, in_a_line, is_full
from itmbench.here import import_from_here
from itmbench.runner import lease, plan, run, running, tracker, tune
from itmbench.runner.cell import train_and_test
from itmbench.runner.plan import Planned, Planner, Request
from itmbench.runner.processes import POLL, WORKER, end_with_parent, forget_launcher, hide_srun_hint
from itmbench.runner.spec import Cell

logger = logging.getLogger(WORKER)  # __main__ does not belong to the package


def runner(options: dict[str, Any]) -> None:
    """Run cells of a saved plan."""
    planner = Planner(options.pop("runners"))
    path, request = Path(options.pop("plan")), Request(**{**options, "results": Path(options["results"])})
    run.run_cells(plan.load(path), planner, request, wait=False)


def tuner(options: dict[str, Any]) -> None:
    """Run studies of a benchmark."""
    planner = Planner()
    studies = tune.plan(**{**options, "results": Path(options["results"])}, planner=planner)
    tune.search_all(studies, planner, wait=False)


def share(work: Callable[[dict[str, Any]], None], options: dict[str, Any], child: bool) -> int:
    """Do work that several processes share; a child ends with the process that started it."""
    if child:
        end_with_parent()
    forget_launcher()
    try:
        with run.interruptible():
            work(options)
    except KeyboardInterrupt:
        return 1
    except (InputError, OSError) as error:
        if not child:  # a Slurm job; the parent of a child finds the same error itself and reports it once
            logger.error("%s", in_a_line(error))
        return 1
    return 0


def rank(options: dict[str, Any]) -> int:
    """Train and test one cell; Lightning starts this program again for every further device."""
    end_with_parent()
    hide_srun_hint()
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not first:
        warnings.simplefilter("ignore")
    folder = Path(options.pop("folder"))
    planned = Planned(**{**options, "cell": Cell(**options["cell"])})
    try:
        with logs.quiet():
            held = lease.shared(folder) if first else None
            train_and_test(planned.cell, Planner().open(planned), folder, planned.key, held)
    except lease.Lost:
        return 1
    except Exception as error:
        tracker.abandon()
        if is_full(error):
            logger.error("%s", in_a_line(error))
            (folder / running.FULL).touch()
            return 1
        # When one device fails, the others fail as a consequence. Leave the first failure time to be recorded, or a
        # signal time to arrive that ends this process as well.
        time.sleep(3 * POLL)
        if running.recorded_failure(folder, planned.key) is None and not (folder / running.FULL).exists():
            running.record_failure(folder, planned.key, error)
        return 1
    return 0


if __name__ == "__main__":
    import_from_here()
    kind, options, *flags = sys.argv[1:]
    values = json.loads(options)
    logs.configure(values.pop("verbosity"))
    status = rank(values) if kind == "rank" else share({"runner": runner, "tuner": tuner}[kind], values, bool(flags))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the processes of a failed run may wait for each other on the way out
