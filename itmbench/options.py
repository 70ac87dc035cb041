"""Constructor arguments as plain values, so that a checkpoint can rebuild the object whose weights it holds."""

import contextlib
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Set
from contextvars import ContextVar
from importlib.metadata import entry_points
from pathlib import PurePath
from typing import Any, Self

from itmbench.errors import InputError

PLAIN = (bool, int, float, str, type(None))
IRRELEVANT = frozenset(
    {"lr", "weight_decay", "warmup", "lr_multiplier", "feature_dropout", "protocol", "checkpoint", "pretrained"}
)
"""Options that may differ between training and use: they only train, only evaluate, or only say where weights lie."""


def require_range(option: str, value: float, low: float, high: float) -> None:
    """Raise an InputError if the number of an option is NaN, less than ``low`` or more than ``high``."""
    if not low <= value <= high:
        limits = "more than 0" if low == sys.float_info.min else f"at least {low:g}"
        limits += f" and at most {high:g}" if high < sys.float_info.max else ""
        raise InputError(f"{option}: {value:g} is out of range; give {limits}")


class Recorded:
    """Remembers the arguments that an object was built with, defaults included.

    ``options`` gives them as plain values; nested objects look as they do in a config:
    ``{"class_path": ..., "init_args": {...}}``.
    """

    _arguments: Mapping[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        with contextlib.suppress(TypeError):  # copies are made without arguments and take them over with their state
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
            given = dict(list(bound.arguments.items())[1:])
            for name, parameter in inspect.signature(cls.__init__).parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    given |= given.pop(name, {})
            object.__setattr__(self, "_arguments", {**_defaults(cls), **given})
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Class and arguments as plain values.

        Raises:
            InputError: an argument cannot be written as plain values, such as a module of another library.
        """
        arguments = {}
        for name, value in self._arguments.items():
            built = getattr(self, name, None) if value is None else None  # None may stand for a default object
            arguments[name] = _plain(built if isinstance(built, Recorded) else value, f"{_path(type(self))}: {name}")
        return {"class_path": _path(type(self)), "init_args": arguments}


def build(options: Mapping[str, Any]) -> Any:
    """The object that ``options`` describes.

    Classes come from itmbench, from packages that register methods or datasets, or from modules that are already
    imported: a checkpoint must not be able to make Python import a file that happens to lie in the current folder.

    Raises:
        InputError: a class is missing, not trusted, or not one that records its options; or does not take them.
    """
    path = str(options.get("class_path"))
    module, _, name = path.rpartition(".")
    if module not in sys.modules and module.partition(".")[0] not in _trusted_packages():
        raise InputError(f"{path}: its module is not imported; import {module} first if you trust it")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: no such class ({error}); install the version that wrote the checkpoint") from None
    if not (isinstance(found, type) and (issubclass(found, Recorded) or _is_protocol(found))):
        raise InputError(f"{path}: not a method, encoder, loss or protocol; use a checkpoint written by itmbench")
    arguments = {key: _built(value) for key, value in dict(options.get("init_args", {})).items()}
    if dataclasses.is_dataclass(found):
        arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        return found(**arguments)
    except TypeError as error:
        raise InputError(f"{path}: {error}; install the version that wrote the checkpoint") from None


@contextlib.contextmanager
def restoring() -> Iterator[None]:
    """While it lasts, encoders are built without their pretrained weights, which a checkpoint holds."""
    token = _restoring.set(True)
    try:
        yield
    finally:
        _restoring.reset(token)


def is_restoring() -> bool:
    """Whether weights will follow from a checkpoint."""
    return _restoring.get()


_restoring: ContextVar[bool] = ContextVar("restoring", default=False)


def differences(trained: Mapping[str, Any], given: Mapping[str, Any], ignored: Set[str] = IRRELEVANT) -> list[str]:
    """Options that set two objects apart, as ``"intra_k 8, not 1"``: the first value is that of ``trained``."""
    ours, theirs = (dict(_leaves(options, ignored)) for options in (trained, given))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return [
        f"{key} {ours.get(key, 'unset')}, not {theirs.get(key, 'unset')}"
        for key in keys
        if ours.get(key) != theirs.get(key)
    ]


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _defaults(cls: type) -> dict[str, Any]:
    """Defaults of a constructor, and of those above it that its ``**kwargs`` go to."""
    defaults: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        for parameter in parameters:
            if parameter.default is not inspect.Parameter.empty:
                defaults.setdefault(parameter.name, parameter.default)
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return defaults


def _is_protocol(cls: type) -> bool:
    return any(base.__module__ == "itmbench.evaluation.protocol" for base in cls.__mro__)


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Recorded):
        return value.options
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return {"class_path": _path(type(value)), "init_args": _plain(fields, where)}
    raise InputError(
        f"{where}: {type(value).__name__} cannot be saved as plain values; "
        "make its class a subclass of itmbench.options.Recorded"
    )


def _built(value: Any) -> Any:
    if isinstance(value, Mapping):
        return build(value) if "class_path" in value else {key: _built(item) for key, item in value.items()}
    return [_built(item) for item in value] if isinstance(value, list) else value


def _leaves(value: Any, ignored: Set[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value by its dotted name, without the parts ``class_path`` and ``init_args``."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, item in value.items():
        name = {"class_path": path or "class", "init_args": path}.get(key, f"{path}.{key}" if path else key)
        if key not in ignored:
            yield from _leaves(item, ignored, name)


def _trusted_packages() -> set[str]:
    points = [*entry_points(group="itmbench.methods"), *entry_points(group="itmbench.datasets")]
    return {"itmbench", *(point.module.partition(".")[0] for point in points)}
