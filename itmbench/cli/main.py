"""The command line: the table of commands, and the exit code of each way to end.

Each row names a module of this package whose ``run(command, arguments)`` parses the arguments, and returns 0 (all done)
or 1 (something failed).
"""

import atexit
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module

from itmbench import __version__, interruption, logs
from itmbench.errors import InputError, InputErrors, choice, is_full
from itmbench.processors import keep_memory, sort_without_avx512_on_zen_4

COMMANDS = {
    "bench": ("bench", "run methods × datasets × seeds and print the tables"),
    "tune": ("tune", "search the options of every method of a benchmark on validation"),
    "fit": ("fit", "train a method on a dataset"),
    "validate": ("fit", "evaluate a checkpoint on the validation split"),
    "test": ("fit", "evaluate a checkpoint on the test split"),
    "predict": ("fit", "write the embeddings of the test split"),
    "audit": ("audit", "check a method for leaks of test information"),
    "explain": ("explain", "show why: regions and words (SEDRA), neighbours and labels (MCR-DGN)"),
    "search": ("search", "find photographs of your own by a sentence, or sentences by a photograph"),
    "report": ("report", "print the results, or write them as CSV, JSON, Markdown, LaTeX or HTML"),
    "compare": ("compare", "test which differences between methods are significant"),
    "results": ("results", "list, show, remove or merge results"),
    "data": ("data", "prepare or verify a dataset"),
    "list": ("list", "list methods, datasets and benchmarks"),
}
HELP = """usage: itmbench COMMAND [ARGUMENTS] [-v | -q] [--debug]
       itmbench COMMAND --help

Benchmark suite for image-text matching and cross-modal retrieval.

commands:
{commands}

options:
  -v, -q     print more, or only warnings and errors
  --debug    show the traceback of an error
  --version  print the version

example:
  itmbench bench mini"""
FLAGS = ("-v", "-q", "--debug")
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
LONGEST = 600
"""Most characters of a line of an error on the screen."""
MOST = 20
"""Most lines of an error on the screen."""
IN_LOADER = "itmbench.errors.InputError: "
"""What stands before an input error in the traceback that a loader process sends."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 all done, 1 something failed, 2 bad usage or bad input. An error is one line on stderr; its
        traceback comes before it with ``--debug`` only.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader processes are forked after tokenizers were used
    # By default torch's idle threads spin on cores that the loader processes need, which made training on two cores
    # three times slower. OpenMP reads this when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["MPLBACKEND"] = "agg"  # nothing is shown in a window; a backend that is not installed would be an error
    keep_memory()
    sort_without_avx512_on_zen_4()
    logs.configure(arguments.count("-v") - arguments.count("-q"))
    status = 0
    try:
        status = _run([argument for argument in arguments if argument not in FLAGS])
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        return status
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        _print_error(error.lines if isinstance(error, InputErrors) else [_line(error)])
        return 2 if isinstance(error, InputError | OSError) and not is_full(error) else 1
    except KeyboardInterrupt as error:
        print("\nitmbench: " + "; ".join(["interrupted", *map(str, error.args)]), file=sys.stderr)
        return 1
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # drop what is left, or Python would complain when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def program() -> None:
    """The command line: ``main``, and an exit that leaves it to the system to free memory.

    Python would take the objects of torch apart one by one, for two seconds. Handlers of other packages run all the
    same: those that are registered last are called first.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller; the next file to be opened would take its place
            stream = open(os.devnull, mode)  # noqa: SIM115
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
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
    # For SIGTERM others have Lightning's handler, or nothing to finish.
    signals = [signal.SIGINT, *([signal.SIGTERM] if command in ("bench", "tune") else [])]
    with interruption.watched(*signals):
        try:
            return _call(command, rest)
        except Exception:  # may be what a package made of the interruption
            interruption.require_none()
            raise


def _call(command: str, arguments: list[str]) -> int:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("the current folder has been removed; change to another") from None
    for argument in (command, *arguments):
        if not argument.isprintable() and argument != argument.encode(errors="replace").decode():
            raise InputError(f"{argument}: is not UTF-8, so no result file can be named after it; rename it")
        if argument.endswith("=--"):  # argparse would drop the value
            raise InputError(f"{argument}: is not a value; give another")
    if command in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:<9}  {summary}" for name, (_, summary) in COMMANDS.items())))
        return 0
    if command == "--version":
        print(f"itmbench {__version__}")
        return 0
    if command not in COMMANDS:
        raise InputError(f"{command}: no such command; {choice(command, COMMANDS)}")
    _require_interpreter()
    _require_ranks()
    module, _ = COMMANDS[command]
    return int(import_module(f"itmbench.cli.{module}").run(command, arguments))


def _require_interpreter() -> None:
    """Raise an InputError if Python drops docstrings, which transformers reads, or makes errors of all warnings."""
    if sys.flags.optimize > 1:
        raise InputError("PYTHONOPTIMIZE=2, or python -OO: transformers needs docstrings; use 1, or unset it")
    for option in sys.warnoptions:
        action, *_, module = [part.strip() for part in f"{option}:::".split(":")][:4]
        if action and "error".startswith(action) and not module:
            raise InputError(
                f"PYTHONWARNINGS={option}, or python -W {option}: packages used here warn; use default, or unset it"
            )


def _require_ranks() -> None:
    """Raise an InputError if a launcher gives a process no number, before Lightning reads it when it is imported."""
    for name in RANKS:
        if not os.environ.get(name, "0").isdecimal():
            raise InputError(f"{name}={os.environ[name]}: is not the number of a process; unset it, or use torchrun")


def _line(error: Exception) -> str:
    """What an error says in one line; of an unexpected one also where in the code it was raised."""
    if isinstance(error, InputError):
        return str(error).rpartition(IN_LOADER)[2]
    if isinstance(error, OSError) and error.strerror:
        path = error.filename2 if is_full(error) and error.filename2 else error.filename  # where a copy was to go
        where = "the output" if path is None else os.fsdecode(path)
        return f"{where}: {error.strerror}; check the path, its permissions and the space on its disk"
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(last.filename)}, line {last.lineno}"
    return f"{type(error).__name__}: {error} ({place}); --debug shows the whole traceback"


def _print_error(lines: Sequence[str]) -> None:
    """Print each line of an error, without letters that a terminal would obey.

    If several devices train, rank 0 prints the error; the others print theirs only if rank 0 does not end with it.
    """
    rank = os.environ.get("LOCAL_RANK", "0")
    if rank.isdecimal() and int(rank):
        first, until = os.getppid(), time.monotonic() + 20
        while time.monotonic() < until:
            if os.getppid() != first:
                return
            time.sleep(0.1)
    more = [f"and {len(lines) - MOST:,} more errors; correct these first"] * (len(lines) > MOST)
    for line in [*lines[:MOST], *more]:
        plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line.strip())
        shown = plain if len(plain) <= LONGEST else f"{plain[: LONGEST // 2]} … {plain[-LONGEST // 2 :]}"
        print(f"itmbench: {shown}", file=sys.stderr)


if __name__ == "__main__":
    program()
