"""``itmbench tune``: search the options of every method of a benchmark, with as many trials each."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from itmbench.cli.arguments import Parser, add_only, add_results_folder
from itmbench.errors import InputError
from itmbench.here import import_from_here

logger = logging.getLogger(__name__)

EXAMPLE = """\
itmbench tune captions --trials 12                       # all methods of a packaged benchmark
itmbench tune my.yaml --only method=sedra --devices 2    # two methods or datasets at a time
itmbench bench my.yaml                                   # uses what was chosen, if my.yaml says tuned: true"""


def run(command: str, arguments: Sequence[str]) -> int:
    """Tune a benchmark; return 1 if every trial of a method failed."""
    parser = Parser(
        command,
        description="Search the options that the tune block of a benchmark names, for each of its methods on each of "
        "its datasets, with the same number of trials. Trials are measured on validation; test data are not used. "
        "Trial 0 is the method's own config. Trials that exist are kept, and an interrupted one resumes.",
        example=EXAMPLE,
    )
    parser.add_argument("spec", metavar="NAME|FILE", help="a packaged benchmark or a YAML file, with a tune block")
    add_results_folder(parser)
    parser.add_argument("--trials", type=int, default=12, metavar="N", help="for each method (default: %(default)s)")
    add_only(parser, "dataset=flickr30k-mini,method=scan")
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="tune N methods at a time, each on a device"
    )
    options = parser.parse_args(arguments)
    for name in ("trials", "devices"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} {getattr(options, name)}: give 1 or more")
    if "LOCAL_RANK" in os.environ:
        raise InputError("tune: starts its own processes; call it without torchrun (LOCAL_RANK is set)")
    import_from_here()

    from itmbench.runner.processes import forget_launcher
    from itmbench.runner.tuned import cells_to_tune, is_tuned, place

    forget_launcher()
    results, failed = Path(options.results), False
    try:
        cells = cells_to_tune(options.spec, options.only)
        if not is_tuned(cells, results, options.trials):
            from itmbench.runner.tune import tune  # imports torch

            failed = bool(tune(**vars(options)))  # its arguments have the names of the options
    except (BrokenPipeError, KeyboardInterrupt) as error:
        raise KeyboardInterrupt("the same command resumes and keeps every finished epoch") from error

    import pandas as pd

    for cell, _ in cells:
        table = pd.read_csv(place(cell, results, ".csv")).dropna(axis="columns", how="all")
        table.columns = [name.replace(".init_args", "") for name in table.columns]
        print(f"\n{cell.method} on {cell.dataset}")
        print(table.to_string(index=False, na_rep="", float_format="{:.4g}".format))
        chosen = place(cell, results, ".yaml")
        print(f"chosen options: {chosen}" if chosen.exists() else "every trial failed")
    print("\nA benchmark uses these options if its file says tuned: true.")
    return int(failed)
