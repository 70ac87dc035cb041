"""The command line: the table of commands, and the exit code of each way to end.

Each row names a module of this package whose ``run(command, arguments)`` parses the arguments, and returns 0 (all done)
or 1 (something failed).
"""

import atexit
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from itmbench import __version__, logs
from itmbench.errors import InputError, InputErrors
from itmbench.processors import keep_memory

COMMANDS = {
    "bench": ("bench", "run methods × datasets × seeds and print the tables"),
    "tune": ("tune", "search the options of every method of a benchmark on validation"),
    "fit": ("fit", "train a method on a dataset"),
    "validate": ("fit", "evaluate a checkpoint on the validation split"),
    "test": ("fit", "evaluate a checkpoint on the test split"),
    "predict": ("fit", "write the embeddings of the test split"),
    "audit": ("audit", "check that a method's test numbers use nothing that they must not use"),
    "explain": ("explain", "show which training items a test item attends to (MCR-DGN)"),
    "report": ("report", "print the results, or write them as CSV, Markdown, LaTeX or HTML"),
    "compare": ("compare", "test which differences between methods are significant"),
    "results": ("results", "list, show, remove or merge results"),
    "data": ("data", "prepare or verify a dataset"),
    "list": ("list", "list methods, datasets and benchmarks"),
}
HELP = """usage: itmbench COMMAND [ARGUMENTS] [-v | -q]
       itmbench COMMAND --help

Benchmark suite for image-text matching and cross-modal retrieval.

commands:
{commands}

options:
  -v, -q     print more, or only warnings and errors
  --version  print the version

example:
  itmbench bench mini"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 all done, 1 something failed, 2 bad usage or bad input (one line on stderr).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader processes are forked after tokenizers were used
    # By default torch's idle threads spin on cores that the loader processes need, which made training on two cores
    # three times slower. OpenMP reads this when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_memory()
    logs.configure(arguments.count("-v") - arguments.count("-q"))
    try:
        return _run([argument for argument in arguments if argument not in ("-v", "-q")])
    except InputError as error:
        _print_error(error)
        return 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        return 0
    except KeyboardInterrupt as error:
        print("\nitmbench: " + "; ".join(["interrupted", *map(str, error.args)]), file=sys.stderr)
        return 1
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # drop what is left, or Python would complain when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def program() -> None:
    """The command line: ``main``, and an exit that leaves it to the system to free memory.

    Python would take the objects of torch apart one by one, for two seconds. Handlers of other packages run all the
    same: those that are registered last are called first.
    """
    statuses: list[int] = []

    def end() -> None:
        if statuses:
            sys.stdout.flush()
            os._exit(statuses[0])

    atexit.register(end)
    statuses.append(main())
    sys.exit(statuses[0])


def _run(arguments: list[str]) -> int:
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:<9}  {summary}" for name, (_, summary) in COMMANDS.items())))
        return 0
    if command == "--version":
        print(f"itmbench {__version__}")
        return 0
    if command not in COMMANDS:
        raise InputError(f"{command}: no such command; give one of {', '.join(COMMANDS)}")
    module, _ = COMMANDS[command]
    return int(import_module(f"itmbench.cli.{module}").run(command, rest))


def _print_error(error: InputError) -> None:
    """Print an input error as one line, or one line for each of several.

    An error from a loader process arrives as a traceback that ends with it. If several devices train, rank 0 prints
    the error; the others print theirs only if rank 0 does not end with it.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        first, until = os.getppid(), time.monotonic() + 20
        while time.monotonic() < until:
            if os.getppid() != first:
                return
            time.sleep(0.1)
    lines = [line for line in str(error).splitlines() if line.strip()]
    for line in error.lines if isinstance(error, InputErrors) else lines[-1:]:
        print(f"itmbench: {line.removeprefix('itmbench.errors.InputError: ')}", file=sys.stderr)


if __name__ == "__main__":
    program()
