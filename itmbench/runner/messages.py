"""Messages of jsonargparse, and of constructors that it calls, as one plain line."""

import inspect
import os
import pkgutil
import re
import sys
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


NO_CLASS = "Expected a dot import path string: "
"""What jsonargparse says before a name that is no class."""


def parameters(kind: type) -> list[str]:
    """Names of the constructor arguments of a class and its bases."""
    inits = [base.__init__ for base in kind.__mro__ if "__init__" in vars(base)]  # type: ignore[misc]
    return list(dict.fromkeys(name for init in inits for name in inspect.signature(init).parameters if name != "self"))


def one_line(message: str, command: str | None, options: Sequence[str], parser_command: str | None) -> str:
    """A message of jsonargparse in one line, with the options that may be meant.

    Args:
        message: of the parser.
        command: that was called, if any.
        options: names of those that do not depend on the method and the dataset.
        parser_command: what the parser calls the command.
    """
    message = _first_reason(message)
    if command and message.startswith(("unrecognized arguments", "the following arguments")):
        message = f"{command}: {message.replace(f'{parser_command}.', '--')}; see itmbench {command} --help"
    if unknown := re.search(r"(unrecognized arguments: --|does not accept option ')([\w.-]+)", message):
        dashes = "--" if unknown[1].endswith("--") else ""
        hint = _meant(unknown[2], options, dashes)
        after = ", or --model.help CLASS" if dashes else hint and f"; {hint.strip()}"
        return message.replace("; see", f"; {hint}see") + after
    if re.search("unrecognized arguments: [^-]", message):
        return f"{message}; a trained model comes first, as in `itmbench test RUN --data.root DIR`"
    if unknown := re.search(r"\b(\w+): Option '([\w.]+)' is not accepted", message):
        kinds = [kind for kind in _below(CorpusDataModule, nn.Module) if kind.__name__ == unknown[1]]
        hint = did_you_mean(unknown[2], [name for kind in kinds for name in parameters(kind)])
        return f"{message}; {hint}see itmbench fit --{message.partition(':')[0]}.help {unknown[1]}"
    return message


def _meant(name: str, options: Sequence[str], dashes: str) -> str:
    """The option whose whole name, or else its last part, an unknown name may mean."""
    full = [option for option in options if "." in option or "." not in name]  # no option is "trainer" alone
    by_last = {option.rpartition(".")[2]: dashes + option for option in reversed(options)}
    return did_you_mean(name, full, lambda option: dashes + option) or did_you_mean(
        name.rpartition(".")[2], by_last, by_last.__getitem__
    )


def _below(*bases: type) -> list[type]:
    """The classes and all that are derived from them, as far as they are imported."""
    classes: dict[type, None] = {}
    below = [*bases]
    while below:
        kind = below.pop()
        classes[kind] = None
        below += {*kind.__subclasses__()}.difference(classes)
    return [*classes]


def _first_reason(message: str) -> str:
    """The option and the best reason in a message of jsonargparse, which lists every type that it tried."""
    lines = [line.strip(" -") for line in message.splitlines()]
    option = ".".join(line.split('"')[1] for line in lines if line.startswith("Parser key"))
    problems = [at for at, line in enumerate(lines) if line.startswith("Problem with given class_path")]
    reasons = [line for line in lines if line.startswith(("Expected", "Option")) and "NoneType" not in line]
    reasons = [line for line in reasons if not line.startswith("Expected a path")]
    given = next((line.removeprefix("Given value: ") for line in lines if line.startswith("Given value: ")), "")
    if bases := _bases(lines):
        return f"{option}: {given} is not derived from {' or '.join(bases)}; give a class that is"
    if not option or not (reasons or problems):
        return " ".join(message.split())
    # Of several classes that an option takes, the last one named came closest.
    last = [line for line in lines[problems[-1] :] if line in reasons] if problems else []
    reason = (last or reasons or [lines[problems[-1] + 1]])[0]
    if reason.startswith(NO_CLASS):
        types = [line for line in lines if line.startswith("Subtypes")][-1].split("'")[1::2]
        return f"{option}: {_no_class(option, reason.removeprefix(NO_CLASS), types)}"
    if reason.startswith("Expected"):
        return f"{option}: {_expected(reason, given)}"
    if not problems:
        return reason
    path = lines[problems[-1]].split("'")[1]
    name = path.rpartition(".")[2]
    return f"{option}: {_missing(path, reason) or f'{name}: {reason}'}"


def _bases(lines: Sequence[str]) -> list[str]:
    """The classes that a class would have to be derived from, if a message of these lines says no more than that."""
    tried = lines[len(lines) - lines[::-1].index("Errors:") :] if "Errors:" in lines else []  # the innermost types
    bases = [line.rpartition(" ")[2] for line in tried if line.startswith("Import path does not correspond")]
    return [] if any(line.startswith("Problem") for line in tried) else [*dict.fromkeys(bases)]


def _no_class(option: str, name: str, types: Sequence[str]) -> str:
    """That an option of these types knows no class of a name, and what may be meant."""
    kind = {"model": "methods", "data": "datasets"}.get(option, "")
    short = {entry.name: entry.target.rpartition(":")[2] for entry in registry.entries(kind)}
    if named := short.get(name.casefold()):
        return f"{name} is the name in `itmbench list` of the class {named}; give that"
    if config := registry.find_config(kind, name):
        return f"{name} is no class, but there is a config of it; give --config {config}"
    below = _below(*(pkgutil.resolve_name(path) for path in types if "." in path))
    names = [*short.values()] or sorted(
        known.__name__ for known in below if not (known.__subclasses__() or known.__name__.startswith("_"))
    )
    return f"there is no {name}; {choice(name, names)}, or module.Class of your own"


def _expected(reason: str, given: str) -> str:
    """A reason about the type of a value in plain words, with the value."""
    for words, plain in (
        ("<class '", ""),
        ("'>", ""),
        ("typing.", ""),
        (". Got value:", ", got"),
        ("Expected a ", "expected "),
    ):
        reason = reason.replace(words, plain)
    return reason if ", got" in reason else f"{reason}, got {given}"


def _missing(path: str, reason: str) -> str:
    """What of the path of a class does not exist, with names that may be meant; empty if its import failed inside."""
    module = re.fullmatch(r"No module named '([\w.]+)'", reason)
    unknown = module or re.fullmatch(r"module '([\w.]+)' has no attribute '(\w+)'", reason)
    name = ".".join(unknown.groups()) if unknown else ""
    if not name or not f"{path}.".startswith(f"{name}."):
        return ""
    where, _, last = name.rpartition(".")
    parent = sys.modules.get(where)
    known = [found.name for found in pkgutil.iter_modules(getattr(parent, "__path__", [] if parent else [os.getcwd()]))]
    known += [key for key, value in vars(parent).items() if isinstance(value, type)] if parent else []
    what = f"{where} has no {last}" if parent else f"there is no module {name}"
    return f"{what}; {did_you_mean(last, known)}give module.Class of an installed package or of the current folder"


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
