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

from pydantic import AfterValidator, ConfigDict, Field, GetPydanticSchema, TypeAdapter, WrapValidator

from itmbench.errors import InputError, in_a_line
from itmbench.files import write_atomically
from itmbench.schema import keys
from itmbench.units import is_share

SCHEMA = 4
"""Version of ``result.json``; older ones are readable."""
ADDED = {"audit": 2, "recipe": 3, **dict.fromkeys(("training", "steps", "budget", "choices", "trials"), 4)}
"""Fields that version 1 did not have, and the version that added them."""
RESULT, CONFIG, PER_QUERY, CHECKPOINT = "result.json", "config.yaml", "per_query.parquet", "best.ckpt"
EXAMPLES = "examples.json"
"""First results of some queries, for the page's gallery; older cells and those of a shortlist have none."""
EXPLANATIONS = "explanations.json"
"""Why a few of these queries were answered as they were; only of methods that explain themselves."""
LOG = "log.txt"
"""Messages of the run."""
FILES = (RESULT, CONFIG, PER_QUERY, CHECKPOINT, EXAMPLES, EXPLANATIONS, LOG)
"""All files of a cell."""
RUNNING = ".running"
"""Folder, below the results, of incomplete cells and of cells that are being merged or removed."""


Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Limit = Annotated[int, Field(ge=-1)] | None
Name = Annotated[str, Field(min_length=1)]
_PROTOCOL = keys(name=Name, version=Count, objective=str, ties=NotRequired[str], normaliser=NotRequired[str | None])
_COUNT = keys(what=str, found=Count, published=Count | None)
_DATA = keys(name=Name, fingerprint=Name, counts=list[_COUNT])  # type: ignore[valid-type]
_PARAMETERS = keys(all=Count, trained=Count)
_COMMIT = keys(commit=str, dirty=bool)
_CHECK = keys(passed=bool)
_BUDGET = keys(
    max_epochs=Limit,
    max_steps=Limit,
    batch_size=Count,
    limit_train_batches=NotRequired[Amount | None],
    patience=NotRequired[Count | None],
    max_seconds=NotRequired[Count],
)
_or_empty = WrapValidator(lambda value, handler: value if value == {} else handler(value))


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
            all devices), patience (of early stopping), max_seconds (only if time ends the training); empty if nothing
            is trained by an optimizer.
        choices: what validation chose beside the checkpoint, by name.
        trials: with how many `itmbench tune` chose its options; 0 if they are the method's own.
    """

    key: Name
    benchmark: Name
    dataset: Name
    method: Name
    seed: Count
    metrics: dict[str, float]
    validation: float
    protocol: Annotated[dict[str, Any], _like(_PROTOCOL)]
    data: Annotated[dict[str, Any], _like(_DATA)]
    pretraining: Annotated[str, _like(Literal["scratch", "unimodal", "captions", "image-text"])]
    inductive: bool
    parameters: Annotated[dict[str, int], _like(_PARAMETERS)]
    flops: dict[str, Count]
    throughput: dict[str, Amount]
    peak_memory: Count
    seconds: Amount
    epochs: Count
    hardware: dict[str, Any]
    versions: dict[str, str]
    git: Annotated[dict[str, Any] | None, _like(_COMMIT | None)]
    finished: Annotated[str, AfterValidator(_dated)]
    schema: Annotated[int, Field(ge=1)] = SCHEMA
    audit: dict[str, Annotated[dict[str, Any], _like(_CHECK)]] = field(default_factory=dict)
    recipe: Name = ""
    training: Name = ""
    steps: Count = 0
    budget: Annotated[dict[str, Any], _like(_BUDGET), _or_empty] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    trials: Count = 0

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
            for name, since in ADDED.items():
                if (since <= schema) != (name in content):
                    raise ValueError(f"{name}: {'not yet' if name in content else 'missing'} in schema {schema}")
            objective = result.protocol["objective"]
            if objective not in result.metrics or objective.startswith("chance/"):
                raise ValueError(f"metrics: no {objective}, the objective of the protocol")
            numbers = {f"metrics.{name}": value for name, value in result.metrics.items()}
            for name, value in (numbers | {f"validation, {objective}": result.validation}).items():
                if _out_of_range(name, value):
                    raise ValueError(f"{name}: {value:g} cannot be")
            parts, total = _parts(objective, result.metrics), result.metrics[objective]
            if parts and abs(sum(parts) - total) > 1e-3:
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
    least = -1 if "/lost " in name else 0  # of a shortlist, which may be better than the whole gallery
    most = 600 if name.endswith("rSum") else 1 if is_share(name) else math.inf
    return not (least <= value <= most * (1 + 1e-9) and math.isfinite(value))


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
