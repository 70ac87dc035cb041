"""``itmbench bench``: run what is missing of a benchmark, then print the tables and write the page."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from itmbench.cli.arguments import Parser, add_only, add_results_folder, imports, write_out
from itmbench.errors import InputError
from itmbench.here import import_from_here
from itmbench.logs import ignore_noise

logger = logging.getLogger(__name__)

OWN = b"<title>itmbench: "
"""What every page of results begins with."""
EXAMPLE = """\
itmbench bench mini                                  # a packaged benchmark; `itmbench list` shows them
itmbench bench my.yaml --only method=sedra,seed=0    # some cells of a file of your own
itmbench bench paper --dry-run                       # what would run, and how long it would take"""


def run(command: str, arguments: Sequence[str]) -> int:
    """Run a benchmark; return 1 if a cell failed."""
    parser = Parser(
        command,
        description="Train and test every cell (method × dataset × seed) that has no result yet, print the tables of "
        "all results and write them as a page.",
        example=EXAMPLE,
    )
    parser.add_argument("spec", metavar="NAME|FILE", help="a packaged benchmark or a YAML file")
    add_results_folder(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would run and how long it takes, and stop")
    parser.add_argument("--force", action="store_true", help="run finished and failed cells again")
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again")
    add_only(parser, "dataset=flickr30k-mini,method=dual_infonce,seed=0")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="run N cells at a time, each on one device")
    parser.add_argument("--launcher", default="local", choices=["local", "slurm"], help="here, or as N Slurm jobs")
    options = parser.parse_args(arguments)
    if options.devices < 1:
        raise InputError(f"--devices {options.devices}: give 1 or more")
    if "LOCAL_RANK" in os.environ:
        raise InputError("bench: starts its own processes; call it without torchrun (LOCAL_RANK is set)")
    import_from_here()

    from itmbench.runner.done import is_done
    from itmbench.runner.processes import forget_launcher
    from itmbench.runner.spec import Cell
    from itmbench.runner.tuned import cells_to_run
    from itmbench.store import results

    forget_launcher()
    failed: list[Cell] = []
    try:
        cells = cells_to_run(options.spec, options.only, Path(options.results))
        if not (options.dry_run or options.force) and is_done(cells, Path(options.results)):
            for number, cell in enumerate(cells, 1):
                logger.info("[%d/%d] %s: done before", number, len(cells), cell)
        else:
            with imports():
                from itmbench.runner.registry import load_all
                from itmbench.runner.run import run as run_benchmark

                ignore_noise()
                load_all()
            failed = run_benchmark(**vars(options))  # its arguments have the names of the options
    except (BrokenPipeError, KeyboardInterrupt) as error:
        raise KeyboardInterrupt("the same command resumes and keeps every finished epoch") from error
    if not options.dry_run and options.launcher == "local" and any(results(options.results)):
        from itmbench.report.formats import plain
        from itmbench.report.page import page
        from itmbench.report.tables import load, tables

        shown = tables(load(options.results))
        print(plain(shown))
        path = Path(options.results, "index.html")
        try:
            _require_own(path)
            write_out(path, page(shown, path.parent))
            print(f"As a page: {path}")
        except (InputError, OSError) as error:  # the results are there all the same
            logger.warning("no page: %s", error)
    return 1 if failed else 0


def _require_own(page: Path) -> None:
    """Raise an InputError if a page is not one of results, and so not to be replaced."""
    try:
        head = page.read_bytes()[:1000]
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{page}: cannot be read ({error.strerror}); move it away") from None
    if OWN not in head:
        raise InputError(f"{page}: is not a page of itmbench, so it was not replaced; move it away")
