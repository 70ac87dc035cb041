"""The first results of a cell's example queries, as the results store keeps them."""

from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from itmbench.errors import InputError
from itmbench.evaluation.examples import Examples
from itmbench.store import EXAMPLES


def read_examples(folder: str | Path) -> Examples | None:
    """Read ``examples.json`` of a cell; None if it has none: an older one, or one evaluated with a shortlist.

    Raises:
        InputError: the file cannot be read, or a field in it is missing or of the wrong type.
    """
    path = Path(folder, EXAMPLES)
    if not path.exists():
        return None
    try:
        return _validator().validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        reason = f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}"
    except OSError as error:
        reason = str(error.strerror)
    raise InputError(f"{path}: no example queries ({reason}); remove the file or run that cell again")


@cache
def _validator() -> TypeAdapter[Examples]:
    return TypeAdapter(Examples)
