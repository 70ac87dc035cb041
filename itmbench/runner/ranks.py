"""A cell that trains on several devices: a program of its own, with a process a device.

Lightning starts the processes of the other devices by calling the program anew, with the same arguments. Were that the
whole benchmark, each of them would take another cell.
"""

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import yaml

from itmbench import store
from itmbench.runner import cell as cells
from itmbench.runner import failure, lease, tracker
from itmbench.runner.child import LOOK, Child, end_with_parent
from itmbench.runner.key import cell_key
from itmbench.runner.lightning import CellCLI
from itmbench.runner.progress import quiet
from itmbench.runner.spec import Cell


def run(cell: Cell, folder: Path, key: str, check: Callable[[], None]) -> None:
    """Train and test a cell from the ``config.yaml`` in its folder, and write its result there.

    Args:
        cell: which one.
        folder: that it runs in.
        key: of the cell.
        check: called meanwhile; what it raises ends the processes.

    Raises:
        Recorded: it failed.
        RuntimeError: its processes ended without a result and without saying why.
    """
    known = {name: value for name, value in asdict(cell).items() if name != "config"}
    child = Child(__name__, [json.dumps(known), str(folder), key])
    try:
        status = child.wait(check)
    finally:
        child.end()  # at once: what is ended has not failed, and must not say so
    if cells.finished(folder, key) is not None:
        return
    if failure.recorded(folder, key) is not None:
        raise failure.Recorded
    how = f"was killed by signal: {signal.strsignal(-status)}" if status < 0 else f"ended with exit code {status}"
    raise RuntimeError(f"a process {how} before there was a result; what was printed is in {folder / cells.LOG}")


def main(cell: str, folder: str, key: str) -> int:
    """What the process of each device does; the first one writes."""
    end_with_parent()
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not first:
        warnings.simplefilter("ignore")
    at = Path(folder)
    config = yaml.safe_load((at / store.CONFIG).read_text(encoding="utf-8"))
    try:
        with quiet():
            callbacks = [cells.CheckLease(lease.shared(at))] if first else []
            cli = CellCLI(config)
            if cell_key(cli.resolved(), cli.data.corpus) != key:
                raise RuntimeError("code or data have changed since this benchmark began; start it again")
            cells.train_and_test(Cell(**json.loads(cell), config=config), cli, at, key, callbacks)
    except lease.Lost:
        return 1
    except Exception as error:
        tracker.abandon()
        # Where one device fails, the others fail of that, and it was the first. Or it was ended, and ends this one too.
        time.sleep(3 * LOOK)
        if failure.recorded(at, key) is None:
            failure.record(at, key, error)
        return 1
    return 0


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # processes of a run that failed may wait for each other when they leave
