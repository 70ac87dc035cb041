"""Messages of jsonargparse, and of constructors that it calls, as one plain line."""

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from itmbench.data.datamodule import CorpusDataModule
from itmbench.errors import InputError, choice, did_you_mean
from itmbench.runner import registry

CONSTRUCTOR_ERRORS = (
    *(ValueError, RuntimeError, TypeError, ArithmeticError, MemoryError, NotImplementedError),
    MisconfigurationException,
)
"""What constructors raise for arguments that they do not accept."""


def parameters(kind: type) -> list[str]:
    """Names of the constructor arguments of a class and its bases."""
    inits = [base.__init__ for base in kind.__mro__ if "__init__" in vars(base)]  # type: ignore[misc]
    return list(dict.fromkeys(name for init in inits for name in inspect.signature(init).parameters if name != "self"))


def one_line(message: str, command: str | None, options: Sequence[str]) -> str:
    """A message of jsonargparse in one line, with the options that may be meant.

    Args:
        message: of the parser.
        command: that was called, if any.
        options: names of those that do not depend on the method and the dataset.
    """
    message = _first_reason(message)
    if command and message.startswith(("unrecognized arguments", "the following arguments")):
        message = f"{command}: {message.replace(f'{command}.', '--')}; see itmbench {command} --help"
    if unknown := re.search(r"(unrecognized arguments: --|does not accept option ')([\w.-]+)", message):
        dashes = "--" if unknown[1].endswith("--") else ""
        by_last = {option.rpartition(".")[2]: dashes + option for option in reversed(options)}
        hint = did_you_mean(unknown[2].rpartition(".")[2], by_last, by_last.__getitem__)
        after = ", or --model.help CLASS" if dashes else hint and f"; {hint.strip()}"
        return message.replace("; see", f"; {hint}see") + after
    if re.search("unrecognized arguments: [^-]", message):
        return f"{message}; a trained model comes first, as in `itmbench test RUN --data.root DIR`"
    if unknown := re.search(r"\b(\w+): Option '([\w.]+)' is not accepted", message):
        hint = did_you_mean(unknown[2], [name for kind in _classes(unknown[1]) for name in parameters(kind)])
        return f"{message}; {hint}see itmbench fit --{message.partition(':')[0]}.help {unknown[1]}"
    return message


def _classes(name: str) -> list[type]:
    """Classes of that name among datasets and modules."""
    classes: dict[type, None] = {}
    below: list[type] = [CorpusDataModule, nn.Module]
    while below:
        kind = below.pop()
        classes[kind] = None
        below += {*kind.__subclasses__()}.difference(classes)
    return [kind for kind in classes if kind.__name__ == name]


def _first_reason(message: str) -> str:
    """The option and the best reason in a message of jsonargparse, which lists every type that it tried."""
    lines = [line.strip(" -") for line in message.splitlines()]
    option = ".".join(line.split('"')[1] for line in lines if line.startswith("Parser key"))
    problems = [at for at, line in enumerate(lines) if line.startswith("Problem with given class_path")]
    reasons = [line for line in lines if line.startswith(("Expected", "Option")) and "NoneType" not in line]
    reasons = [line for line in reasons if not line.startswith("Expected a path")]
    if not option or not (reasons or problems):
        return " ".join(message.split())
    given = next((line.removeprefix("Given value: ") for line in lines if line.startswith("Given value: ")), "")
    # Of several classes that an option takes, the last one named came closest.
    last = [line for line in lines[problems[-1] :] if line in reasons] if problems else []
    reason = (last or reasons or [lines[problems[-1] + 1]])[0]
    class_name = reason.removeprefix("Expected a dot import path string: ")
    if class_name != reason:
        kind = {"model": "methods", "data": "datasets"}.get(option)
        types = [line for line in lines if line.startswith("Subtypes")][-1].split("'")[1::2]
        known = [entry.target for entry in registry.entries(kind)] if kind else types
        names = [name.replace(":", ".").rpartition(".")[2] for name in known if name != "NoneType"]
        short = {entry.name: entry.target.rpartition(":")[2] for entry in registry.entries(kind)} if kind else {}
        if class_name in short:
            return f"{option}: {class_name} is the name in `itmbench list` of the class {short[class_name]}; give that"
        return f"{option}: there is no {class_name}; {choice(class_name, names)}, or module.Class of your own"
    if reason.startswith("Expected"):
        reason = (
            reason.replace("<class '", "").replace("'>", "").replace("typing.", "").replace(". Got value:", ", got")
        )
        reason = reason.replace("Expected a ", "expected ")
        return f"{option}: {reason}" + ("" if ", got" in reason else f", got {given}")
    return f"{option}: {lines[problems[-1]].split(chr(39))[1].rpartition('.')[2]}: {reason}" if problems else reason


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise a constructor's own message about its input, without what jsonargparse adds."""
    try:
        yield
    except CONSTRUCTOR_ERRORS as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is None:
            raise InputError(_reason(str(error))) from error
        raise cause from cause.__cause__


def _reason(message: str) -> str:
    """The constructor's own words in a message of jsonargparse, which lists every type that it tried."""
    of_parser = ("Does not validate", "Subtypes", "Errors", "Import path", "Expected a <class", "Given value")
    lines = [line.strip(" -") for line in message.splitlines()]
    return next((line for line in lines if line and not line.startswith(of_parser)), " ".join(message.split()))
