"""Types of dicts that are read from files, for pydantic."""

from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12


def keys(**types: Any) -> Any:
    """The type of a dict with these keys, and any others."""
    return with_config(ConfigDict(extra="allow", strict=True))(TypedDict("Keys", types))  # type: ignore[operator]
