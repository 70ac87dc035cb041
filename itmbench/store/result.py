"""The schema of ``result.json``, and the names of the files of a cell."""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, GetPydanticSchema, TypeAdapter

from itmbench.errors import InputError, in_a_line
from itmbench.files import write_atomically
from itmbench.schema import keys

SCHEMA = 4
"""Version of ``result.json``: 2 added ``audit``, 3 ``recipe``, 4 the last five fields. Older ones are readable."""
RESULT, CONFIG, PER_QUERY, CHECKPOINT = "result.json", "config.yaml", "per_query.parquet", "best.ckpt"
EXAMPLES = "examples.json"
"""First results of some queries, for the page's gallery; older cells and those of a shortlist have none."""
EXPLANATIONS = "explanations.json"
"""Why a few of these queries were answered as they were; only of methods that explain themselves."""
LOG = "log.txt"
"""Messages of the run."""
RUNNING = ".running"
"""Folder, below the results, of incomplete cells and of cells that are being merged or removed."""


_PROTOCOL = keys(name=str, version=int, objective=str, ties=NotRequired[str], normaliser=NotRequired[str | None])
_COUNT = keys(what=str, found=int, published=int | None)
_DATA = keys(name=str, fingerprint=str, counts=list[_COUNT])  # type: ignore[valid-type]
_PARAMETERS = keys(all=int, trained=int)
_COMMIT = keys(commit=str, dirty=bool)
_CHECK = keys(passed=bool)
_BUDGET = keys(
    max_epochs=NotRequired[int | None],
    max_steps=NotRequired[int | None],
    batch_size=NotRequired[int],
    limit_train_batches=NotRequired[float | None],
    patience=NotRequired[int | None],
)


def _like(kind: Any) -> GetPydanticSchema:
    """Validate a value as another type than the type checker knows it by."""
    return GetPydanticSchema(lambda _, handler: handler.generate_schema(kind))


def _dated(time: str) -> str:
    datetime.fromisoformat(time)
    return time


@dataclass(frozen=True)
class Result:
    """The content of ``result.json``; docs/results.md explains every field.

    Args:
        key: hash of everything that can change the result; a cell whose key has a result does not run again.
        metrics: of the test stage.
        validation: objective on the validation stage, by which the checkpoint was chosen.
        protocol: every option of the evaluation protocol.
        data: name, fingerprint, and the counts found beside the published ones.
        pretraining: "scratch", "unimodal", "captions" or "image-text"; only rows of the same class are ranked together.
        inductive: whether every test item was encoded without the others.
        flops: floating-point operations to encode one image and one text, and to score a pair.
        throughput: items a second.
        peak_memory: bytes.
        seconds: wall time of training and test.
        audit: check of the leak audit -> passed, found and bound; empty in results that predate the audit.
        recipe: like ``key``, without the seed; seeds are averaged where it is equal. Empty in older results.
        training: like ``recipe``, without the options that a trained model may change (``Trained.switchable``): rows of
            equal ``training`` and seed have the same training steps. Empty in older results, as the next three.
        steps: optimizer steps trained.
        budget: max_epochs, max_steps (-1: no limit), limit_train_batches, batch_size (pairs in an optimizer step, over
            all devices) and patience (of early stopping); empty if nothing is trained by an optimizer.
        choices: what validation chose beside the checkpoint, by name.
        trials: with how many `itmbench tune` chose its options; 0 if they are the method's own.
    """

    key: str
    benchmark: str
    dataset: str
    method: str
    seed: Annotated[int, Field(ge=0)]
    metrics: dict[str, float]
    validation: float
    protocol: Annotated[dict[str, Any], _like(_PROTOCOL)]
    data: Annotated[dict[str, Any], _like(_DATA)]
    pretraining: Annotated[str, _like(Literal["scratch", "unimodal", "captions", "image-text"])]
    inductive: bool
    parameters: Annotated[dict[str, int], _like(_PARAMETERS)]
    flops: dict[str, int]
    throughput: dict[str, float]
    peak_memory: int
    seconds: float
    epochs: int
    hardware: dict[str, Any]
    versions: dict[str, str]
    git: Annotated[dict[str, Any] | None, _like(_COMMIT | None)]
    finished: Annotated[str, AfterValidator(_dated)]
    schema: int = SCHEMA
    audit: dict[str, Annotated[dict[str, Any], _like(_CHECK)]] = field(default_factory=dict)
    recipe: str = ""
    training: str = ""
    steps: int = 0
    budget: Annotated[dict[str, Any], _like(_BUDGET)] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    trials: int = 0

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    def save(self, folder: Path) -> None:
        """Write ``result.json`` into a folder, atomically."""
        write_atomically(folder / RESULT, json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def load(folder: Path) -> "Result":
        """Read ``result.json`` of a cell folder, of this schema or an older one.

        Raises:
            InputError: the file is missing, a newer itmbench wrote it, or a field is missing, unknown or of the wrong
                type.
        """
        path = folder / RESULT
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text)
            schema = content.get("schema", 1)
            if isinstance(schema, int) and schema > SCHEMA:
                raise InputError(
                    f"{path}: schema {schema} of a newer itmbench, this one reads up to {SCHEMA}; update it"
                )
            for value in _values(content):
                if isinstance(value, str) and not value.isprintable():
                    raise ValueError(f"control characters in {value!r}")
                if isinstance(value, int) and abs(value) > sys.maxsize:
                    raise ValueError(f"a number of {len(str(value))} digits")
            result = _validator().validate_json(text)
            objective = result.protocol["objective"]
            if objective not in result.metrics or objective.startswith("chance/"):
                raise ValueError(f"metrics: no {objective}, the objective of the protocol")
            if wrong := next((name for name, value in result.metrics.items() if _out_of_range(name, value)), None):
                raise ValueError(f"metrics.{wrong}: {result.metrics[wrong]:g} cannot be")
            parts, total = _parts(objective, result.metrics), result.metrics[objective]
            if parts and abs(sum(parts) - total) > 1e-3:  # never of NaN
                raise ValueError(f"metrics.{objective}: {total:g}, but by its parts {sum(parts):g}")
            return result
        except InputError:
            raise
        except (OSError, AttributeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path}: not a result ({in_a_line(error)}); remove that folder and run the cell again"
            ) from None


def _out_of_range(name: str, value: float) -> bool:
    """Whether a metric has a value that none can have."""
    last = name.rpartition("/")[2]
    most = 600 if last == "rSum" else 1 if last.startswith(("R@", "P@", "NDCG@", "mAP")) else None
    return math.isinf(value) or (most is not None and (value < 0 or value > most))


def _parts(objective: str, metrics: dict[str, float]) -> list[float]:
    """What an objective is the sum of, if the metrics hold it all."""
    names = [f"{side}/R@{k}" for side in ("i2t", "t2i") for k in (1, 5, 10)] if objective == "rSum" else []
    names = ["i2t/mAP", "t2i/mAP"] if objective == "mAP" else names
    share = 100 if objective == "rSum" else 0.5
    return [share * metrics[name] for name in names] if names and {*names} <= {*metrics} else []


def _values(value: Any) -> Iterator[Any]:
    """All plain values in a value of JSON, keys included."""
    if isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _values(part)
    else:
        yield value


@cache
def _validator() -> TypeAdapter[Result]:
    return TypeAdapter(Result)
