"""The command line: the one way in."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from itmbench import __version__
from itmbench.errors import InputError, InputErrors

LIGHTNING = {
    "fit": "train a method on a dataset (LightningCLI: any option of trainer, model and data)",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on the test split",
    "predict": "write the embeddings of the test split",
    "audit": "prove that test numbers hold nothing of other test items (options of test, and --images)",
    "explain": "what test items look at in a checkpoint of mcr_dgn, and whether it matters (options of test; --items)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 all done, 1 something failed, 2 bad usage or bad input (one line on stderr).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader processes are forked after tokenizers were used
    # By default torch's threads spin while they wait, on cores that the loader processes need: on two cores that made
    # training three times slower. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if (here := os.getcwd()) not in sys.path:  # configs may name a method in a file that lies where the user is
        sys.path.append(here)
    try:
        if arguments and arguments[0] in LIGHTNING:
            return _lightning(arguments)
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except InputError as error:
        return _refuse(error)
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(arguments[0] == "bench")  # which may have cells left
    except KeyboardInterrupt:
        print("\nitmbench: interrupted; the same command goes on from the last epoch", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="itmbench", description="Benchmark suite for image-text matching and cross-modal retrieval."
    )
    parser.add_argument("--version", action="version", version=f"itmbench {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in LIGHTNING.items():
        commands.add_parser(name, help=text, add_help=False)

    bench = commands.add_parser("bench", help="run methods x datasets x seeds and print the table")
    bench.add_argument("spec", help="a YAML file such as benchmarks/mini.yaml")
    bench.add_argument("--results", default="results", help="folder of the results (default: %(default)s)")
    bench.add_argument("--dry-run", action="store_true", help="say what is done, what would run and how long, and stop")
    bench.add_argument("--force", action="store_true", help="run what is done, or has failed, as well")
    bench.add_argument("--retry-failed", action="store_true", help="run what has failed as well")
    bench.add_argument(
        "--only", default="", metavar="KEY=NAME,…", help="such as dataset=flickr30k-mini,method=dual_infonce,seed=0"
    )
    bench.add_argument("--devices", type=int, default=1, metavar="N", help="run N cells at a time, a device each")
    bench.add_argument("--launcher", default="local", choices=["local", "slurm"], help="here, or as N jobs of Slurm")
    bench.set_defaults(run=_bench)

    report = commands.add_parser("report", help="tables of the results")
    report.add_argument("--results", default="results", help="folder of the results (default: %(default)s)")
    report.add_argument("--format", default="table", choices=["table", "csv", "markdown", "latex", "html"])
    report.add_argument("--out", help="file to write (default: the screen)")
    report.set_defaults(run=_report)

    compare = commands.add_parser("compare", help="how much better a method is than others, and whether it is luck")
    compare.add_argument("first", nargs="?", help="a method of the results (default: all pairs of methods)")
    compare.add_argument("others", nargs="*", help="those that it is compared with (default: all others)")
    compare.add_argument("--results", default="results", help="folder of the results (default: %(default)s)")
    compare.add_argument("--format", default="table", choices=["table", "markdown"])
    compare.set_defaults(run=_compare)

    _add_results(commands.add_parser("results", help="what is in the results: list, show, rm, merge"))

    listing = commands.add_parser("list", help="methods and datasets, installed plug-ins included")
    listing.set_defaults(run=_list)

    data = commands.add_parser("data", help="prepare or verify a dataset: itmbench data verify captions --root DIR")
    data.add_argument("action", choices=["prepare", "verify"])
    data.add_argument("name", help="a dataset of `itmbench list`")
    data.add_argument(
        "options", nargs=argparse.REMAINDER, help="its own options, such as --root DIR; --help lists them"
    )
    data.set_defaults(run=_data)
    return parser


def _add_results(parser: argparse.ArgumentParser) -> None:
    """The commands of ``itmbench results``; a cell is named by its folder as ``list`` prints it."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="a line a cell")
    listing.add_argument("--only", default="", metavar="KEY=NAME,…", help="such as benchmark=mini,method=scan,seed=0")
    listing.set_defaults(run=_results_list)
    show = actions.add_parser("show", help="everything that is known of a cell")
    show.add_argument("cells", nargs="+", metavar="CELL", help="its folder as `list` prints it")
    show.set_defaults(run=_results_show)
    remove = actions.add_parser("rm", help="remove cells; asks nothing")
    remove.add_argument("cells", nargs="+", metavar="CELL", help="its folder as `list` prints it")
    remove.set_defaults(run=_results_rm)
    merge = actions.add_parser("merge", help="add the cells of another results folder; nothing here is changed")
    merge.add_argument("other", help="the other folder")
    merge.set_defaults(run=_results_merge)
    for action in (listing, show, remove, merge):
        action.add_argument("--results", default="results", help="folder of the results (default: %(default)s)")


def _lightning(arguments: list[str]) -> int:
    if arguments[0] == "audit":
        from itmbench.cli.audit import audit_command

        return audit_command(arguments[1:])
    if arguments[0] == "explain":
        from itmbench.cli.explain import explain_command

        return explain_command(arguments[1:])
    from itmbench.runner.lightning import MatcherCLI

    MatcherCLI(args=arguments)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from itmbench.runner.child import forget_launcher
    from itmbench.runner.run import run
    from itmbench.store import load_results, results

    if options.devices < 1:
        raise InputError(f"--devices {options.devices}: give 1 or more")
    if "LOCAL_RANK" in os.environ:
        raise InputError("bench: starts all processes that it needs; call it without torchrun (LOCAL_RANK is set)")
    forget_launcher()
    failed = run(
        options.spec,
        options.results,
        only=options.only,
        dry_run=options.dry_run,
        force=options.force,
        retry_failed=options.retry_failed,
        devices=options.devices,
        launcher=options.launcher,
    )
    if not options.dry_run and options.launcher == "local" and any(results(options.results)):
        from itmbench.report.page import write_html
        from itmbench.report.tables import print_tables

        frame = load_results(options.results)
        print_tables(frame)
        print(f"As a page: {write_html(frame, Path(options.results, 'index.html'))}")
    return 1 if failed else 0


def _report(options: argparse.Namespace) -> int:
    from itmbench.cli.report import report

    return report(options.results, options.format, options.out)


def _compare(options: argparse.Namespace) -> int:
    from itmbench.report.compare import compare

    return compare(options.results, options.first, options.others, options.format)


def _results_list(options: argparse.Namespace) -> int:
    from itmbench.cli.results import list_cells

    return list_cells(options.results, options.only)


def _results_show(options: argparse.Namespace) -> int:
    from itmbench.cli.results import show_cells

    return show_cells(options.results, options.cells)


def _results_rm(options: argparse.Namespace) -> int:
    from itmbench.cli.results import remove_cells

    return remove_cells(options.results, options.cells)


def _results_merge(options: argparse.Namespace) -> int:
    from itmbench.cli.results import merge_results

    return merge_results(options.results, options.other)


def _list(options: argparse.Namespace) -> int:
    from itmbench.runner import registry

    for group in registry.GROUPS:
        print(f"{group}:")
        for entry in registry.entries(group):
            print(f"  {entry.name:<20} {entry.summary()}")
    return 0


def _data(options: argparse.Namespace) -> int:
    from itmbench.cli.data import data

    return data(options.action, options.name, options.options)


def _refuse(error: InputError) -> int:
    """Print the one line that an input error is, or one for each; a loader process's ends a traceback.

    Where several devices train, the first process says it. The others say what it does not end with.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        first, until = os.getppid(), time.monotonic() + 20
        while time.monotonic() < until:
            if os.getppid() != first:
                return 2
            time.sleep(0.1)
    lines = [line for line in str(error).splitlines() if line.strip()]
    for line in error.lines if isinstance(error, InputErrors) else lines[-1:]:
        print(f"itmbench: {line.removeprefix('itmbench.errors.InputError: ')}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
