"""The schema of ``result.json``, and the names of the files of a cell."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from itmbench.errors import InputError
from itmbench.files import write_atomically

SCHEMA = 3
"""Of ``result.json``; 2 added ``audit``, 3 ``recipe``. Older results are read as well."""
RESULT, CONFIG, PER_QUERY, CHECKPOINT = "result.json", "config.yaml", "per_query.parquet", "best.ckpt"
RUNNING = ".running"
"""Folder, below the results, of cells that are not complete, and of what is being merged or removed."""


def _with(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A check that a mapping has some keys."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        if missing := [key for key in keys if key not in value]:
            raise ValueError(f"no {' and no '.join(missing)}")
        return value

    return check


@dataclass(frozen=True)
class Result:
    """All that is known of a finished cell, as ``result.json`` holds it; docs/results.md tells it field by field.

    Args:
        key: hash of everything that can change the result; a cell whose key is in the store is not run again.
        metrics: of the test stage.
        validation: the objective on the validation stage that chose the checkpoint.
        protocol: the whole protocol that measured it.
        data: name, fingerprint, and the counts found beside the published ones.
        pretraining: "scratch", "unimodal" or "image-text": rows are ranked together only within a class.
        inductive: every test item was encoded without the others.
        flops: to encode one image and one text.
        throughput: items a second.
        peak_memory: bytes.
        seconds: wall time of the cell, training and test.
        audit: check of the leak audit -> passed, found and bound; empty in results of before there was one.
        recipe: hash as ``key``, but for the seed: seeds are averaged where it is the same; empty in older results.
    """

    key: str
    benchmark: str
    dataset: str
    method: str
    seed: int
    metrics: dict[str, float]
    validation: float
    protocol: Annotated[dict[str, Any], AfterValidator(_with("name", "version", "objective"))]
    data: Annotated[dict[str, Any], AfterValidator(_with("name", "fingerprint", "counts"))]
    pretraining: str
    inductive: bool
    parameters: Annotated[dict[str, int], AfterValidator(_with("all", "trained"))]
    flops: dict[str, int]
    throughput: dict[str, float]
    peak_memory: int
    seconds: float
    epochs: int
    hardware: dict[str, Any]
    versions: dict[str, str]
    git: dict[str, Any] | None
    finished: str
    schema: int = SCHEMA
    audit: dict[str, Annotated[dict[str, Any], AfterValidator(_with("passed"))]] = field(default_factory=dict)
    recipe: str = ""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    def save(self, folder: Path) -> None:
        """Write ``result.json`` into a folder, atomically."""
        write_atomically(folder / RESULT, json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def load(folder: Path) -> "Result":
        """Read ``result.json`` of a cell folder, of this schema or an older one.

        Raises:
            InputError: there is none, a newer itmbench has written it, or a field is missing, unknown or of another
                type.
        """
        path = folder / RESULT
        try:
            text = path.read_text(encoding="utf-8")
            schema = json.loads(text).get("schema", 1)
            if isinstance(schema, int) and schema > SCHEMA:
                raise InputError(
                    f"{path}: schema {schema} of a newer itmbench, this one reads up to {SCHEMA}; update it"
                )
            result = _validator().validate_json(text)
            if result.protocol["objective"] not in result.metrics:
                raise ValueError(f"metrics: no {result.protocol['objective']}, the objective of the protocol")
            return result
        except InputError:
            raise
        except (OSError, AttributeError, ValueError) as error:
            raise InputError(
                f"{path}: not a result ({_in_a_line(error)}); remove that folder and run the cell again"
            ) from None


@cache
def _validator() -> TypeAdapter[Result]:
    return TypeAdapter(Result)


def _in_a_line(error: Exception) -> str:
    """What is wrong with a file, by field where that is known."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, of['loc'])) or 'file'}: {of['msg']}" for of in error.errors()[:3])
