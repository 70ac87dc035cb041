"""The first results of a cell's example queries, and why, as the results store keeps them."""

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from itmbench.errors import InputError
from itmbench.evaluation.examples import Examples
from itmbench.methods.explanations import Explanations
from itmbench.store import EXAMPLES, EXPLANATIONS

KINDS: dict[str, tuple[Any, str]] = {
    EXAMPLES: (Examples, "example queries"),
    EXPLANATIONS: (Explanations, "explanations"),
}
"""What each file holds."""


def read_examples(folder: str | Path) -> Examples | None:
    """Read ``examples.json`` of a cell; None if it has none: an older one, or one evaluated with a shortlist.

    Raises:
        InputError: the file cannot be read, or a field in it is missing or of the wrong type.
    """
    examples: Examples | None = _read(folder, EXAMPLES)
    return examples


def read_explanations(folder: str | Path) -> Explanations | None:
    """Read ``explanations.json`` of a cell; None if it has none: an older one, or a method that explains nothing.

    Raises:
        InputError: the file cannot be read, or a field in it is missing or of the wrong type.
    """
    explanations: Explanations | None = _read(folder, EXPLANATIONS)
    return explanations


def _read(folder: str | Path, name: str) -> Any:
    path = Path(folder, name)
    if not path.exists():
        return None
    try:
        return _validator(name).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        reason = f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}"
    except OSError as error:
        reason = str(error.strerror)
    raise InputError(f"{path}: no {KINDS[name][1]} ({reason}); remove the file or run that cell again")


@cache
def _validator(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[name][0])
