"""Errors and output on the terminal."""

import os
import sys
import time

from itmbench.errors import InputError, InputErrors


def print_error(error: InputError) -> None:
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


def flush() -> None:
    """Write what is left of the output; if its reader has gone, drop it, or Python would complain when it exits."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
