"""The ``tune`` block of a benchmark file: which options `itmbench tune` searches, and between which values."""

import itertools
import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from itmbench.errors import did_you_mean


def _listed(value: Any) -> Any:
    if isinstance(value, list):
        return {"choices": value}
    if not isinstance(value, dict | Range):
        raise ValueError("give a list of choices, or low and high")
    return value


def _limit(value: Any) -> Any:
    try:
        finite = value is None or (not isinstance(value, bool) and math.isfinite(float(value)))
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise ValueError("give a finite number")
    return value


Limit = Annotated[int | float | None, BeforeValidator(_limit)]


class Range(BaseModel):
    """The values of one option: a list of choices in the file, or numbers from ``low`` to ``high``.

    Numbers are whole if both limits are. ``log`` draws them evenly on a logarithmic scale.
    """

    model_config = ConfigDict(extra="forbid")  # not strict: YAML takes 1e-4 for text

    choices: Annotated[list[JsonValue], Field(min_length=1)] | None = None
    low: Limit = None
    high: Limit = None
    log: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> "Range":
        limits = [limit for limit in (self.low, self.high) if limit is not None]
        if len(limits) != (2 if self.choices is None else 0) or (self.choices and self.log):
            raise ValueError("give a list of choices, or low and high and perhaps log: true")
        if limits and not (limits[0] < limits[1] and (limits[0] > 0 or not self.log)):
            raise ValueError("low must be less than high, and more than 0 with log: true")
        return self

    def example(self, number: int) -> JsonValue:
        """A value of the range; the numbers from 0 go through all choices, or both limits."""
        values = [self.low, self.high] if self.choices is None else self.choices
        return values[number % len(values)]

    @property
    def examples(self) -> int:
        """How many values ``example`` goes through."""
        return 2 if self.choices is None else len(self.choices)


Knobs = dict[str, Annotated[Range, BeforeValidator(_listed)] | None]
"""Dotted path of an option in the config, such as ``model.init_args.lr`` -> its values; None: not tuned after all."""


BUDGET = {
    *("max_epochs", "max_steps", "max_time", "min_epochs", "min_steps", "limit_train_batches", "limit_val_batches"),
    *("accumulate_grad_batches", "overfit_batches", "fast_dev_run", "callbacks", "val_check_interval"),
    *("check_val_every_n_epoch", "reload_dataloaders_every_n_epochs", "devices", "num_nodes", "barebones"),
}
"""Options of the trainer that say how long a method trains; tuned, they would give methods different budgets."""


SECTIONS = (
    *("model.init_args", "trainer", "model", "model.class_path", "data", "seed_everything", "threads", "best", "last"),
)
"""What paths of options begin with; those of the first two can be tuned."""


class Space(BaseModel):
    """The ``tune`` block.

    Args:
        seed: of every trial; none of the benchmark's.
        shared: options that are tuned for all methods.
        methods: options by method, over the shared ones.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1000
    shared: Knobs = {}
    methods: dict[str, Knobs] = {}

    @model_validator(mode="after")
    def _only_the_method(self) -> "Space":
        for name in [*self.shared, *(name for knobs in self.methods.values() for name in knobs)]:
            first, *inner = name.split(".")
            if first == "trainer" and inner and inner[0] in BUDGET:
                raise ValueError(f"{name}: the training budget is the same for all methods and is not tuned")
            place = ".".join([first, *inner[: first == "model"]])
            if place not in SECTIONS:
                hint = did_you_mean(place, SECTIONS)
                raise ValueError(f"{name}: there is no {place}; {hint}name options below model.init_args or trainer")
            of_method = first == "model" and inner[:1] == ["init_args"] and inner[1:] and inner[1] != "protocol"
            if not of_method and not (first == "trainer" and inner):
                raise ValueError(
                    f"{name}: belongs to what is measured or trained on, which is not tuned; name options below "
                    "model.init_args (but protocol) or trainer"
                )
        for method in ["", *self.methods]:
            for name, other in itertools.permutations(self.of(method), 2):
                if other.startswith(f"{name}."):
                    raise ValueError(f"{other}: lies within {name}, which is tuned too; leave out one of the two")
        return self

    def of(self, method: str) -> dict[str, Range]:
        """The options to tune of one method."""
        knobs = self.shared | self.methods.get(method, {})
        return {name: knob for name, knob in knobs.items() if knob is not None}


def nested(options: dict[str, Any]) -> dict[str, Any]:
    """A config from the dotted paths of its options.

    >>> nested({"model.init_args.lr": 0.1, "model.init_args.dim": 8, "trainer.max_epochs": 2})
    {'model': {'init_args': {'lr': 0.1, 'dim': 8}}, 'trainer': {'max_epochs': 2}}
    """
    config: dict[str, Any] = {}
    for path, value in options.items():
        *above, name = path.split(".")
        place = config
        for key in above:
            place = place.setdefault(key, {})
        place[name] = value
    return config
