"""The config of a benchmark cell, parsed and checked."""

import warnings
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.strategies import StrategyRegistry

from itmbench.errors import InputError, choice
from itmbench.methods.base import Matcher
from itmbench.runner.given import require_trainable
from itmbench.runner.lightning import MatcherCLI
from itmbench.runner.messages import plain_errors


class CellCLI(MatcherCLI):
    """The parsed config of a benchmark cell, with its data; ``make`` builds everything else."""

    best: ModelCheckpoint  # after ``make``, the callback that keeps the checkpoint to test
    _shared_parser: ClassVar[LightningArgumentParser | None] = None

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(args=config, run=False)  # this seeds everything
        self.devices = self._count_devices()
        self._require_validation()
        with plain_errors():
            self.data = self.parser.instantiate(Namespace(data=self.config.data)).data

    def setup_parser(self, *arguments: Any) -> None:
        """Build the parser once for all cells, because that takes longer than parsing a config."""
        if CellCLI._shared_parser is None:
            super().setup_parser(*arguments)
            quiet = ("trainer.logger", "trainer.enable_progress_bar", "trainer.enable_model_summary")
            self.parser.set_defaults({"threads": 1, **dict.fromkeys(quiet, False)})
            CellCLI._shared_parser = self.parser
        self.parser = CellCLI._shared_parser

    def instantiate_classes(self) -> None:
        """Build nothing yet: all cells of a benchmark are parsed before the first runs."""

    def _count_devices(self) -> int:
        """Number of devices: one unless the config gives another number; the config then says one as well.

        The effective batch spans all devices, so the device count affects the result.
        """
        options = self.config.trainer
        if options.num_nodes > 1:
            raise InputError("trainer.num_nodes: a cell trains on one machine; train on several with `itmbench fit`")
        if options.devices == "auto":
            options.devices = 1
        named = options.devices
        if isinstance(named, str) and "," in named:
            named = [number for number in named.split(",") if number]
        if not isinstance(named, list) and not str(named).lstrip("-").isdecimal():
            raise InputError(f"trainer.devices {named}: not a number of devices; give one such as 2")
        count = len({*map(str, named)}) if isinstance(named, list) else int(named)
        if isinstance(named, list) and count < len(named):
            raise InputError(f"trainer.devices {options.devices}: names a device twice; name each once")
        if count < 1:
            raise InputError(f"trainer.devices {options.devices}: differs from machine to machine; give a number")
        if count > 1 and any(word in str(options.strategy) for word in ("spawn", "fork", "notebook")):
            raise InputError(f"trainer.strategy {options.strategy}: cannot return results; use ddp")
        return count

    def _require_validation(self) -> None:
        """Check that the trainer validates, and keeps the checkpoint that validates best and the last one."""
        options = self.config.trainer
        given = {
            "trainer.fast_dev_run": bool(options.fast_dev_run),
            "trainer.limit_val_batches": _is_partial(options.limit_val_batches),
            "trainer.limit_test_batches": _is_partial(options.limit_test_batches),
            "trainer.overfit_batches": bool(options.overfit_batches),
            "trainer.enable_checkpointing": options.enable_checkpointing is False,
            "trainer.barebones": bool(options.barebones),
        }
        for section in ("best", "last"):
            for name, value in self.config[section].items():
                usual = name in ("dirpath", "verbose") or value == self.parser.get_default(f"{section}.{name}")
                given[f"{section}.{name}"] = not usual
        for option in (option for option, is_given in given.items() if is_given):
            raise InputError(
                f"{option} {self.config[option]}: leave it out; a benchmark tests the epoch that validates best"
            )
        known = {"accelerator": AcceleratorRegistry.available_accelerators() | {"auto", "gpu"}}
        known["strategy"] = {"auto", *StrategyRegistry.available_strategies()}
        for name, names in known.items():
            if isinstance(options[name], str) and options[name] not in names:
                raise InputError(f"trainer.{name}: there is no {options[name]}; {choice(options[name], sorted(names))}")

    def require_sound(self, here: bool) -> Matcher:
        """Build trainer and model once, as `make` does for a run, and return the model.

        If the cell is to run ``here``, this machine must have its devices.

        Raises:
            InputError: they cannot be built, or would fail late or never end.
        """
        options = self.config.trainer
        options.logger = False
        if not here:
            options.accelerator, options.devices, options.strategy = "cpu", 1, "auto"
            options.precision = options.plugins = None
        threads = torch.get_num_threads()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer, model = self.make(Path(), [])
        torch.set_num_threads(threads)
        limits = [callback for callback in trainer.callbacks if isinstance(callback, Timer | EarlyStopping)]  # type: ignore[attr-defined]
        if trainer.max_epochs == trainer.max_steps == -1 and not limits:
            raise InputError("trainer.max_epochs -1: never ends; give a number, or trainer.max_steps")
        require_trainable(trainer, model, self.data)
        return model

    def dump(self) -> str:
        """The config with all its defaults, as YAML that ``itmbench fit --config`` takes."""
        return self.parser.dump(self.config, skip_validation=True)

    def resolved(self) -> dict[str, Any]:
        """The config with all its defaults, as plain values."""
        config: dict[str, Any] = yaml.safe_load(self.dump())
        return config

    def make_model(self) -> Matcher:
        """The untrained model alone, for checks before anything runs."""
        with plain_errors():
            return self.parser.instantiate(Namespace(model=self.config.model)).model

    def make(self, folder: Path, callbacks: list[L.Callback]) -> tuple[L.Trainer, Matcher]:
        """Seed everything, then build trainer and model; checkpoints and logs go into the folder."""
        L.seed_everything(self.config.seed_everything, workers=True, verbose=False)
        self.config.trainer.default_root_dir = str(folder)
        self.config.best.dirpath = self.config.last.dirpath = str(folder)
        super().instantiate_classes()
        trainer, model = self.trainer, self.model
        self.best = self.config_init.best  # the user's own callbacks may be checkpoints as well
        del self.trainer, self.model, self.datamodule, self.config_init  # a sweep keeps no models
        trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]  # before those that write checkpoints
        return trainer, model


def _is_partial(limit: int | float | None) -> bool:
    """Whether a limit of Lightning leaves batches out; the integer 1 means one batch."""
    return limit is not None and (isinstance(limit, int) or limit != 1.0)
