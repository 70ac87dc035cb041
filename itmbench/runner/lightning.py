"""LightningCLI for matchers: ``itmbench fit|validate|test|predict``."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from pydantic import ValidationError

from itmbench import logs
from itmbench.checkpoint import read_checkpoint, require_resumable
from itmbench.data.datamodule import CorpusDataModule
from itmbench.encoders import TimmImageEncoder
from itmbench.errors import InputError, in_a_line
from itmbench.methods.base import Matcher
from itmbench.methods.evaluated import KeepEvaluation
from itmbench.runner import registry
from itmbench.runner.callbacks import Checkpoint, EndOnSigterm, EpochLines, NoticeInterruption, SeedEpochs, WholeFiles
from itmbench.runner.given import config_files, require_sound_configs, require_trainable, with_packaged_configs
from itmbench.runner.messages import one_line, parameters, plain_errors
from itmbench.runner.predictions import EmbeddingWriter
from itmbench.runner.resumed import Resume
from itmbench.runner.run_folder import SaveConfig, run_folder
from itmbench.store.result import CHECKPOINT
from itmbench.units import metric

TRAINER_DEFAULTS = {
    # Validation needs the whole gallery: a sanity check of two batches could only fail.
    "num_sanity_val_steps": 0,
    "gradient_clip_val": 1.0,
    "max_epochs": 20,
    "enable_model_summary": False,  # its FLOPs column is always 0
}

MOST_THREADS = 1024
"""More may be more than the system can start, at which torch would crash."""


class MatcherCLI(LightningCLI):
    """LightningCLI in subclass mode: any ``Matcher`` with any ``CorpusDataModule``, registered ones by class name."""

    _user_command: tuple[str, Sequence[str]] = ("", ())  # its name, if it is another, and its own options

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        logs.ignore_noise()
        registry.load_all()
        args = with_packaged_configs(args)
        self._config_files = config_files(args)
        self._command = args[0] if run and isinstance(args, list) and args else None
        require_sound_configs(args)
        try:
            super().__init__(
                Matcher,
                CorpusDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=SaveConfig if run else None,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # a Matcher keeps its options itself
                seed_everything_default=0,
                trainer_defaults=TRAINER_DEFAULTS,
                parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
                args=args,
                run=run,
            )
        except ArgumentError as error:
            command, options = self._user_command
            line = one_line(str(error), command or self._command, [*options, *self._options()], self._command)
            raise InputError(line if "unrecognized arguments" in line else self._in_config(line)) from error

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The given command alone: building the parsers of all takes four times as long."""
        commands = super().subcommands()
        return {self._command: commands[self._command]} if self._command in commands else commands

    def _options(self) -> list[str]:
        """Names of the options that are the same for all methods and datasets; none before there is a parser."""
        parser = getattr(self, "_subcommand_parsers", {}).get(self._command) or getattr(self, "parser", None)
        classes: dict[str, type] = {"model": Matcher, "data": CorpusDataModule}
        ours = [f"{key}.{name}" for key, kind in classes.items() for name in parameters(kind)]
        actions = parser._actions if parser else []
        return ours + [action.dest for action in actions if not action.dest.endswith(".help")]

    def _in_config(self, message: str) -> str:
        """A message about an option, with the config files that it may stand in."""
        return f"{', '.join(self._config_files)}: {message}" if self._config_files else message

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise InputError(self._in_config(f"seed_everything: {error}; give another number")) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Always keep two checkpoints: the best on validation, and the last to resume from.

        The last has a callback of its own, because with ``save_last`` Lightning 2.6 writes it only when the best
        changes. It is written at the end of an epoch, where a resumed run draws the same numbers as an unbroken one.
        """
        parser.add_argument(
            "--threads", type=int | None, help="CPU threads of torch (default: one a core, in benchmarks 1)"
        )
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
        config = self.config[self.subcommand] if self.subcommand else self.config
        if config.threads is not None:
            if not 0 < config.threads <= MOST_THREADS:
                raise InputError(self._in_config(f"threads: {config.threads}; give 1 to {MOST_THREADS}"))
            torch.set_num_threads(config.threads)
        try:
            with plain_errors():
                super().instantiate_classes()
        except InputError as error:
            raise InputError(self._in_config(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer; it writes checkpoints atomically unless a strategy brings its own way."""
        options = (self.config[self.subcommand] if self.subcommand else self.config).trainer
        for option in ("accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps"):
            if options[option] is not None and options[option] < (option != "log_every_n_steps"):
                raise InputError(f"trainer.{option}: {options[option]} is too few; give 1 or more")
        if not (options.gradient_clip_val or 0) >= 0:
            raise InputError(f"trainer.gradient_clip_val: {options.gradient_clip_val} is too low; give 0 or more")
        strategy = getattr(options.strategy, "class_path", options.strategy)
        if any(name in str(strategy).lower() for name in ("fsdp", "modelparallel")):
            raise InputError(
                f"trainer.strategy {strategy}: splits weights, but not scalars such as temperatures; use ddp, and to "
                "save memory trainer.precision bf16-mixed and itmbench.runner.backbones.Backbones"
            )
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error
        # Not in TRAINER_DEFAULTS: a callback shared by all trainers would keep the last model alive.
        trainer.callbacks[:0] = [EpochLines(), Resume(), SeedEpochs(), NoticeInterruption()]  # type: ignore[attr-defined]
        self.kept = KeepEvaluation()
        trainer.callbacks.append(self.kept)  # type: ignore[attr-defined]
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()
        if trainer.world_size > 1:
            trainer.callbacks.append(EndOnSigterm())  # type: ignore[attr-defined]
        return trainer

    def _parse_ckpt_path(self) -> None:
        """Take nothing from a checkpoint: its options must not replace the user's, nor name code to import.

        Options that differ are refused when the checkpoint is loaded (``Matcher.on_load_checkpoint``).
        """
        command = self.config.get("subcommand")
        path = self.config[command].get("ckpt_path") if command else None
        if path is not None and not (command == "fit" and path == "last"):  # Lightning looks for it itself
            content = read_checkpoint(path, map_location="meta")
            if command == "fit":
                require_resumable(path, content, self.config.fit.trainer.max_epochs)

    def before_instantiate_classes(self) -> None:
        """Leave out Lightning's table of metrics, which has a column a loader; ``after_test`` prints one of its own.

        Checkpoints are read without unpickling code.
        """
        if not self.subcommand:
            return
        options = self.config[self.subcommand]
        options.weights_only = True
        if self.subcommand in ("validate", "test"):
            options.verbose = False
        if self.subcommand != "fit" and options.trainer.logger is None:  # Lightning's would only leave a folder
            options.trainer.logger = False
        if self.subcommand != "fit" and not options.ckpt_path:
            print(f"no --ckpt_path: {self.subcommand} takes the model as it is built, untrained", file=sys.stderr)

    def before_fit(self) -> None:
        """Refuse what would fail only after a while; say so if nothing is pretrained."""
        require_trainable(self.trainer, self.model, self.datamodule)
        image = self.model.image
        if self.trainer.is_global_zero and self.model.pretraining == "scratch" and isinstance(image, TimmImageEncoder):
            count = len(self.datamodule.corpus.train)
            print(
                f"both encoders learn from scratch, from {count:,} images at {image.image_size} px; for pretrained "
                "ones add --config configs/encoders/base_frozen.yaml",
                file=sys.stderr,
            )

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise InputError(self._in_config(" ".join(str(error).split()))) from error
        except Exception as error:
            if isinstance(error, ValidationError) or type(error).__name__ == "UsageError":  # of wandb, at its start
                raise InputError(
                    f"trainer.logger: {in_a_line(error)}; correct its options, and the variables WANDB_…"
                ) from error
            raise

    def after_validate(self) -> None:
        """Print the metrics of the validation stage."""
        self._print_metrics("val")

    def after_test(self) -> None:
        """Print the metrics of the test stage."""
        self._print_metrics("test")

    def _print_metrics(self, stage: str) -> None:
        """One line a metric, beside random chance where that is known."""
        evaluation = self.kept.evaluation
        if not self.trainer.is_global_zero or evaluation is None:
            return
        protocol = self.model.evaluated_by
        print(f"{self.datamodule.corpus.name}, {stage}: {protocol.name}, version {protocol.version}")
        for key, value in evaluation.metrics.items():
            chance = evaluation.metrics.get(f"chance/{key}")
            if not key.startswith("chance/"):
                line = f"  {key:<24} {metric(key, value):>9}"
                print(line if chance is None else f"{line}   random chance {metric(key, chance)}")
        for name, choice in self.model.choices.items():
            print(f"  {name:<24} {choice!s:>9}   as chosen on validation")

    def after_fit(self) -> None:
        """Say where the best checkpoint is and how to test it."""
        best = self.trainer.checkpoint_callback
        if self.trainer.is_global_zero and isinstance(best, ModelCheckpoint) and best.best_model_path:
            objective = self.model.evaluated_by.objective
            score = metric(objective, float(best.best_model_score or 0))  # 0: never unset here
            path = Path(best.best_model_path)
            run = run_folder(self.trainer)
            run = run if path.name == CHECKPOINT and path.is_relative_to(run) else path  # of a run that was resumed
            print(f"best {objective} on validation {score}; test it with")
            print(f"  {shlex.join(['itmbench', 'test', str(run)])}")
        elif self.trainer.is_global_zero:
            print("training ended before the first validation, so there is no best.ckpt, only last.ckpt at most")


class PrintConfigCLI(MatcherCLI):
    """Prints the options as YAML in place of running the command, with the objects that a method makes by default."""

    def instantiate_classes(self) -> None:
        """Build the model, which knows its defaults, and print; a model that cannot be built is printed as given."""
        parser, config = self._parser(self.subcommand), self.config[self.subcommand]
        try:
            with plain_errors(), logs.quiet():
                options = parser.instantiate(Namespace(model=config.model)).model.options["init_args"]
        except InputError as error:
            print(f"null values are defaults that cannot be shown here: {error}", file=sys.stderr)
        else:
            for key in [key for key, value in config.model.init_args.items() if value is None]:
                config.model.init_args[key] = options.get(key)
        print(parser.dump(config, skip_none=False, skip_validation=True), end="")

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


class PreparedCLI(MatcherCLI):
    """Trainer, model and data as ``itmbench test`` builds them, for another use; nothing is logged or saved.

    Errors are those of ``command``, which has ``options`` of its own.
    """

    def __init__(self, arguments: Sequence[str], command: str = "", options: Sequence[str] = ()) -> None:
        self._user_command = command, options
        super().__init__(["test", *arguments, "--trainer.logger=false", "--trainer.enable_progress_bar=false"])

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        self.save_config_callback = None

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""
        self.ckpt_path = self.config[subcommand].ckpt_path
