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

from itmbench.bench import cell as cells
from itmbench.bench import failure, store
from itmbench.bench.child import WATCH, Child, end_with_parent
from itmbench.bench.lightning_cli import CellCLI
from itmbench.bench.progress import quiet
from itmbench.bench.spec import Cell

LAUNCHED = (
    *("LOCAL_RANK", "RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"),
)
"""Variables by which Lightning would take it that somebody else starts the processes."""


def run(cell: Cell, folder: Path, key: str, check: Callable[[], None]) -> None:
    """Train and test a cell from the ``config.yaml`` in its folder, and write its result there.

    Args:
        cell: which one.
        folder: that it runs in.
        key: of the cell.
        check: called meanwhile; what it raises ends the processes.

    Raises:
        Recorded: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    known = {name: value for name, value in asdict(cell).items() if name != "config"}
    status = Child(__name__, [json.dumps(known), str(folder), key], environment).wait(check)
    if status and failure.recorded(folder, key) is None:
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit code {status}"
        raise RuntimeError(f"one of its processes ended {how}; what they printed is in {folder / cells.LOG}")
    if status:
        raise failure.Recorded


def main(cell: str, folder: str, key: str) -> int:
    """What the process of each device does; the first one writes."""
    end_with_parent()
    if int(os.environ.get("LOCAL_RANK", "0")):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        warnings.simplefilter("ignore")
    config = yaml.safe_load(Path(folder, store.CONFIG).read_text(encoding="utf-8"))
    try:
        with quiet():
            cells.train_and_test(Cell(**json.loads(cell), config=config), CellCLI(config), Path(folder), key)
    except Exception as error:
        # Whoever lost another process, because that was ended, ends here as well. Where one fails, the others fail of
        # that, and it was the first.
        time.sleep(3 * WATCH)
        if failure.recorded(Path(folder), key) is None:
            failure.record(Path(folder), key, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
