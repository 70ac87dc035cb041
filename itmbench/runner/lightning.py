"""LightningCLI for matchers: what ``itmbench fit|validate|test|predict`` runs, and what makes a benchmark cell."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

from itmbench.checkpoint import read_checkpoint
from itmbench.data.datamodule import CorpusDataModule
from itmbench.errors import InputError
from itmbench.evaluation.protocol import Evaluation
from itmbench.methods.base import KeepEvaluation, Matcher
from itmbench.runner import registry
from itmbench.runner.callbacks import Checkpoint, EndOnSigterm, SeedEpochs, WholeFiles
from itmbench.runner.predictions import EmbeddingWriter
from itmbench.runner.progress import ignore_noise

TRAINER_DEFAULTS = {
    # Validation needs the whole gallery: a sanity check of two batches could only fail.
    "num_sanity_val_steps": 0,
    "gradient_clip_val": 1.0,
    "max_epochs": 20,
}


class SaveConfig(SaveConfigCallback):
    """Saves the resolved config in the log folder and hands it to the loggers as hyperparameters."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config.as_dict())


class MatcherCLI(LightningCLI):
    """LightningCLI in subclass mode: any ``Matcher`` with any ``CorpusDataModule``, registered ones by class name."""

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        ignore_noise()
        registry.load_all()
        try:
            super().__init__(
                Matcher,
                CorpusDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=SaveConfig if run else None,
                # Some loggers write a config.yaml of their own into the same folder.
                save_config_kwargs={"overwrite": True},
                auto_configure_optimizers=False,
                seed_everything_default=0,
                trainer_defaults=TRAINER_DEFAULTS,
                parser_kwargs={"exit_on_error": False},
                args=args,
                run=run,
            )
        except ArgumentError as error:
            raise InputError(_plainer(" ".join(str(error).split()))) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Two checkpoints are always kept: the best on validation, and the last to go on from.

        The last has a callback of its own: with ``save_last``, Lightning (2.6) writes it only when the best changes. It
        is written where an epoch ends, because that is where a run that goes on can repeat what would have happened.
        """
        parser.add_lightning_class_args(Checkpoint, "best")
        parser.add_lightning_class_args(Checkpoint, "last")
        parser.add_lightning_class_args(EmbeddingWriter, "embeddings")
        parser.set_defaults(
            {
                "best.monitor": "val/objective",
                "best.mode": "max",
                "best.filename": "best",
                "best.enable_version_counter": False,
                "last.filename": "last",
                "last.enable_version_counter": False,
                "last.save_on_train_epoch_end": True,
            }
        )

    def instantiate_classes(self) -> None:
        """Build trainer, model and data."""
        with _plainly():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer; it writes checkpoints whole, unless it is given a way of its own.

        Raises:
            InputError: it cannot be built here with these options.
        """
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError) as error:
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error
        # Not by TRAINER_DEFAULTS: a callback of all trainers keeps the model of the last.
        trainer.callbacks.insert(0, SeedEpochs())  # type: ignore[attr-defined]
        self._kept = KeepEvaluation()
        trainer.callbacks.append(self._kept)  # type: ignore[attr-defined]
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()
        if trainer.world_size > 1:
            trainer.callbacks.append(EndOnSigterm())  # type: ignore[attr-defined]
        return trainer

    def _parse_ckpt_path(self) -> None:
        """Take nothing from a checkpoint: its options must not replace the user's, nor name code to import.

        Options that differ are refused when the checkpoint is loaded (``Matcher.on_load_checkpoint``).

        Raises:
            InputError: the file is not a checkpoint of tensors and plain values, or would run code when read.
        """
        path = self.config[self.config.subcommand].get("ckpt_path") if self.config.get("subcommand") else None
        if path and Path(path).is_file():
            read_checkpoint(path, map_location="meta")

    def before_instantiate_classes(self) -> None:
        """Leave out Lightning's table of metrics, which has a column a loader; ``after_test`` prints one of its own.

        Checkpoints are read without unpickling code, also those at an address, which Lightning (2.6) would trust.

        Raises:
            InputError: there is no such checkpoint.
        """
        if self.subcommand in ("validate", "test"):
            self.config[self.subcommand].verbose = False
        if self.subcommand and "weights_only" in self.config[self.subcommand]:
            self.config[self.subcommand].weights_only = True
        checkpoint = self.config[self.subcommand].ckpt_path if self.subcommand else None
        if self.subcommand and self.subcommand != "fit" and not checkpoint:
            print(f"no --ckpt_path: {self.subcommand} takes the model as it is built, untrained", file=sys.stderr)
        by_name = self.subcommand == "fit" and checkpoint in ("best", "last", "hpc")
        if checkpoint and not by_name and ":" not in checkpoint:
            path = Path(checkpoint)
            if not (path.is_file() or (path / ".metadata").exists()):  # a folder, where weights were sharded
                raise InputError(f"{checkpoint}: no such checkpoint; give one that `itmbench fit` has written")

    @property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation of the trainer."""
        return self._kept.evaluation

    def after_validate(self) -> None:
        """Print the metrics of the validation stage."""
        self._print_metrics("val")

    def after_test(self) -> None:
        """Print the metrics of the test stage."""
        self._print_metrics("test")

    def _print_metrics(self, stage: str) -> None:
        """One line a metric, beside what a random order scores where that is known."""
        evaluation = self.evaluation
        if not self.trainer.is_global_zero or evaluation is None:
            return
        protocol = self.model.evaluated_by
        print(f"{self.datamodule.corpus.name}, {stage}: {protocol.name}, version {protocol.version}")
        for key, value in evaluation.metrics.items():
            chance = evaluation.metrics.get(f"chance/{key}")
            if not key.startswith("chance/"):
                print(f"  {key:<24} {value:>9.4f}" + ("" if chance is None else f"   random order {chance:.4f}"))

    def after_fit(self) -> None:
        """Say where the best checkpoint is and how to test it."""
        best = self.trainer.checkpoint_callback
        config = Path(self.trainer.log_dir or ".", "config.yaml")  # which all devices have to ask for together
        if self.trainer.is_global_zero and isinstance(best, ModelCheckpoint) and best.best_model_path:
            print(f"best val/objective {float(best.best_model_score or 0):.4f}; test it with")  # 0: never unset here
            print(f"  itmbench test --config {config} --ckpt_path {best.best_model_path}")


class PrintConfigCLI(MatcherCLI):
    """Prints the parsed options as YAML in place of running the command."""

    def before_instantiate_classes(self) -> None:
        """Print, and end here.

        Raises:
            SystemExit: always, with code 0.
        """
        config = self.config[self.subcommand]
        print(self._parser(self.subcommand).dump(config, skip_none=False, skip_validation=True), end="")
        raise SystemExit(0)


class CellCLI(MatcherCLI):
    """The parsed config of a benchmark cell, with its data; ``make`` builds the rest that it names.

    Args:
        config: keys as in a config file of ``itmbench fit``.

    Raises:
        InputError: the config names a class or an option that does not exist, or a value of the wrong type.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(args=config, run=False)  # this seeds everything
        self.devices = self._count_devices()
        self._check_validation()
        with _plainly():
            self.data = self.parser.instantiate(Namespace(data=self.config.data)).data

    def instantiate_classes(self) -> None:
        """Nothing yet: all cells of a benchmark are parsed before the first is made."""

    def _count_devices(self) -> int:
        """How many devices it trains on: one, unless the config says how many; the config then says one, too.

        The batch is that of all devices, so their number is part of what a result is the result of.

        Raises:
            InputError: it is not said how many, or a benchmark cannot train on them.
        """
        asked = self.config.trainer
        if asked.num_nodes > 1:
            raise InputError("trainer.num_nodes: a cell trains on one machine; train on several with `itmbench fit`")
        if asked.devices == "auto":
            asked.devices = 1
        named = [each for each in asked.devices.split(",") if each] if "," in str(asked.devices) else asked.devices
        if not isinstance(named, list) and not str(named).lstrip("-").isdecimal():
            raise InputError(f"trainer.devices {named}: no number of devices; give one such as 2")
        count = len(named) if isinstance(named, list) else int(named)
        if count < 1:
            raise InputError(f"trainer.devices {asked.devices}: say how many; it is not the same on every machine")
        if count > 1 and any(word in str(asked.strategy) for word in ("spawn", "fork", "notebook")):
            raise InputError(f"trainer.strategy {asked.strategy}: gives no results back; use ddp")
        return count

    def _check_validation(self) -> None:
        """See whether there will be a best epoch.

        Raises:
            InputError: options of the trainer leave out validation or checkpoints.
        """
        asked = self.config.trainer
        for option, given in (
            ("fast_dev_run", bool(asked.fast_dev_run)),
            ("limit_val_batches", asked.limit_val_batches == 0),
            ("enable_checkpointing", asked.enable_checkpointing is False),
            ("barebones", bool(asked.barebones)),
        ):
            if given:
                raise InputError(
                    f"trainer.{option} {asked[option]}: leave it out; a benchmark tests the epoch that validates best"
                )

    def check_devices(self) -> None:
        """See whether this machine has the devices.

        Raises:
            InputError: it has not.
        """
        asked = self.config.trainer
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                L.Trainer(accelerator=asked.accelerator, devices=asked.devices, logger=False)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise InputError(
                f"trainer.accelerator {asked.accelerator}, devices {asked.devices}: {' '.join(str(error).split())}"
            ) from error

    def dump(self) -> str:
        """The config with all its defaults, as YAML that ``itmbench fit --config`` takes."""
        return self.parser.dump(self.config, skip_validation=True)

    def resolved(self) -> dict[str, Any]:
        """What ``dump`` gives, as plain values."""
        config: dict[str, Any] = yaml.safe_load(self.dump())
        return config

    def make_model(self) -> Matcher:
        """The model alone, to be asked before anything runs."""
        with _plainly():
            return self.parser.instantiate(Namespace(model=self.config.model)).model

    def make(self, folder: Path, callbacks: list[L.Callback]) -> tuple[L.Trainer, Matcher]:
        """Seed everything, then build trainer and model; checkpoints and logs go into the folder."""
        L.seed_everything(self.config.seed_everything, workers=True, verbose=False)
        self.config.trainer.default_root_dir = str(folder)
        self.config.best.dirpath = self.config.last.dirpath = str(folder)
        super().instantiate_classes()
        trainer, model = self.trainer, self.model
        del self.trainer, self.model, self.datamodule, self.config_init  # a sweep keeps no models
        trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
        return trainer, model


def _plainer(message: str) -> str:
    """What jsonargparse says of a wrong value, without all the types that it tried; what it says else as it is."""
    where = ".".join(re.findall(r'Parser key "([^"]+)":', message))
    tried = re.findall(r"<class '(?:[\w.]*\.)?(\w+)'>", message.rpartition("Subtypes: [")[2].partition("]")[0])
    if name := re.search(r"Expected a dot import path string: (\S+)", message):
        kinds = {"model": "methods", "data": "datasets"}
        known = [each.target.rpartition(":")[2] for each in registry.entries(kinds[where])] if where in kinds else tried
        known = [each for each in known if each != "NoneType"]
        return f"{where}: there is no {name[1]}; give one of {', '.join(known)}, or module.Class of your own"
    if of_class := re.findall(r"class_path '([\w.]+)': (?!Parser key|Does not)(.*?)(?= - Expected|$)", message):
        return f"{where}: {of_class[-1][0].rpartition('.')[2]}: {of_class[-1][1]}"
    if value := re.search(r"Expected an? <class '(\w+)'>\. Got value: (.*?)(?= - Expected|$)", message):
        return f"{where}: {value[2]} is no {value[1]}"
    if tried and (given := re.search(r"Given value: (.*)$", message)):
        return f"{where}: {given[1]} is none of {', '.join(tried)}"
    return message


@contextmanager
def _plainly() -> Iterator[None]:
    """What a constructor says of its input is not buried in jsonargparse's words."""
    try:
        yield
    except ValueError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from cause.__cause__
