"""Resuming from a checkpoint: it must fit the config, and training continues with the epoch after it.

Else Lightning fails late, silently follows the checkpoint, or repeats the end of an epoch.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.loops.loop import _Loop
from torch import Tensor
from torch.optim import Optimizer

from itmbench.data.batches import global_seed
from itmbench.errors import InputError
from itmbench.runner.cost import budget

State = Mapping[str, Any]
TRAINING = "training"
"""Where a checkpoint says what it was trained on (``_training``); older ones do not."""
FREE = {"params", "lr", "fused", "foreach", "capturable", "differentiable"}
"""Of a parameter group: what the schedule sets, and what changes only how fast a step is."""


class Resume(L.Callback):
    """Compares data, batches, optimizers and schedules of a checkpoint with those that the config gives, before
    training, which it begins with the next epoch.
    """

    _saved: State | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[TRAINING] = _training(trainer, pl_module)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._saved = checkpoint

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise an InputError that names the first difference."""
        if self._saved is None:
            return
        schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        ours, theirs = _training(trainer, pl_module), self._saved.get(TRAINING, {})
        both = [name for name in theirs if name in ours]  # other versions compare other things
        differences = [f"{name} {theirs[name]}, not {ours[name]}" for name in both if theirs[name] != ours[name]]
        differences += [*_of_optimizers(trainer.optimizers, self._saved.get("optimizer_states", []))]
        differences += _of_schedulers(schedulers, self._saved.get("lr_schedulers", []))
        self._saved = None
        if differences:
            raise InputError(
                f"the checkpoint does not fit this training: {differences[0]}; resume with the options that it was "
                "trained with, or start anew without --ckpt_path"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the next epoch, if the checkpoint ends one.

        With ``max_steps`` Lightning 2.6 ends that epoch once more instead, counts it twice, and from then on draws the
        training pairs of the epoch after the current one.
        """
        loop = trainer.fit_loop
        if loop.restarted_on_epoch_end:
            _Loop.restarting.fset(loop, False)  # type: ignore[attr-defined]  # its own setter keeps it True
            loop.reset()
            loop.epoch_progress.current.completed = loop.epoch_progress.current.ready


def _training(trainer: L.Trainer, model: Any) -> dict[str, Any]:
    """What every epoch of a training shares, and by what its best epoch is chosen."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    limits = budget(trainer, data.batch_size)
    return {
        "data of the fingerprint": data.corpus.fingerprint,
        "validation by": model.evaluated_by.objective,
        "seed": global_seed(),
        "pairs in a step": limits["batch_size"],
        "limit_train_batches": str(limits["limit_train_batches"]),  # 1 is a batch, and 1.0 all of them
    }


def _of_optimizers(optimizers: Sequence[Optimizer], saved: Sequence[State]) -> Iterator[str]:
    if len(optimizers) != len(saved):
        yield f"{len(saved)} optimizers, not {len(optimizers)}"
    for optimizer, state in zip(optimizers, saved, strict=False):
        ours, theirs = optimizer.param_groups, state["param_groups"]
        sizes = [[len(group.get("params", ())) for group in groups] for groups in (theirs, ours)]
        if sizes[0] != sizes[1]:
            yield f"groups of {sizes[0]} parameters, not {sizes[1]}"
            continue
        for mine, other in zip(ours, theirs, strict=True):
            for name in sorted(({*mine} & {*other}) - FREE):  # other versions of torch have other options
                if _plain(mine[name]) != _plain(other[name]):
                    yield f"{name.removeprefix('initial_')} {other[name]}, not {mine[name]}"
        numbers = [number for group in theirs for number in group["params"]]
        parameters = dict(zip(numbers, (p for group in ours for p in group["params"]), strict=True))
        for number, values in state["state"].items():
            if number not in parameters or not isinstance(values, Mapping):
                yield f"a state for parameter {number}, which does not exist"
                continue
            for name, value in values.items():
                shape = parameters[number].shape
                if isinstance(value, Tensor) and value.ndim and value.shape != shape:
                    yield f"{name} of shape {list(value.shape)} for a parameter of shape {list(shape)}"


def _of_schedulers(ours: Sequence[State], saved: Sequence[State]) -> Iterator[str]:
    if len(ours) != len(saved):
        yield f"{len(saved)} learning rate schedules, not {len(ours)}"
    for mine, other in zip(ours, saved, strict=False):
        for name, value in mine.items():
            theirs = other.get(name)
            if type(value) is not type(theirs) or (isinstance(value, list) and len(value) != len(theirs or ())):
                yield f"a learning rate schedule whose {name} is {theirs!r}, not like {value!r}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
