"""LightningCLI for matchers: ``itmbench fit|validate|test|predict``, and the config of a benchmark cell."""

import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies import StrategyRegistry

from itmbench import logs
from itmbench.checkpoint import read_checkpoint, require_resumable
from itmbench.data.datamodule import CorpusDataModule
from itmbench.errors import InputError
from itmbench.files import write_atomically
from itmbench.methods.base import Matcher
from itmbench.methods.evaluated import KeepEvaluation
from itmbench.runner import registry
from itmbench.runner.callbacks import Checkpoint, EndOnSigterm, NoticeInterruption, SeedEpochs, WholeFiles
from itmbench.runner.given import config_files, require_sound_configs, require_trainable, require_unused
from itmbench.runner.predictions import EmbeddingWriter
from itmbench.runner.resumed import RequireFittingState
from itmbench.store.result import CHECKPOINT
from itmbench.units import metric

TRAINER_DEFAULTS = {
    # Validation needs the whole gallery: a sanity check of two batches could only fail.
    "num_sanity_val_steps": 0,
    "gradient_clip_val": 1.0,
    "max_epochs": 20,
}

MOST_THREADS = 1024
"""More may be more than the system can start, at which torch would crash."""

CONSTRUCTOR_ERRORS = (
    *(ValueError, RuntimeError, TypeError, ArithmeticError, MemoryError, NotImplementedError),
    MisconfigurationException,
)
"""What constructors raise for arguments that they do not accept."""


def run_folder(trainer: L.Trainer) -> Path:
    """The folder that a run keeps its config in: a logger's, which is new for every run, or that of its checkpoints."""
    folder = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir)
    return folder.parent if trainer.loggers and folder.name == "checkpoints" else folder


class SaveConfig(SaveConfigCallback):
    """Saves the resolved config of a training run beside its checkpoints; the loggers get it as hyperparameters."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.is_global_zero and not self.already_saved:
            for logger in trainer.loggers:
                logger.log_hyperparams(self.config.as_dict())
        self.already_saved = True

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the config, before training; checkpoint callbacks know their folders by now."""
        if not trainer.is_global_zero:
            return
        folder = run_folder(trainer)
        if not self.config.ckpt_path:
            kept = [each for each in trainer.checkpoint_callbacks if isinstance(each, Checkpoint)]
            files = [Path(each.dirpath or "", f"{each.filename}.ckpt") for each in kept]
            # A logger has a new folder for every run, and may write a config.yaml of its own into it.
            require_unused(files if trainer.loggers else [folder / "config.yaml", *files])
        write_atomically(folder / "config.yaml", self.parser.dump(self.config, skip_none=False))


class MatcherCLI(LightningCLI):
    """LightningCLI in subclass mode: any ``Matcher`` with any ``CorpusDataModule``, registered ones by class name."""

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        logs.ignore_noise()
        registry.load_all()
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
                parser_kwargs={"exit_on_error": False},
                args=args,
                run=run,
            )
        except ArgumentError as error:
            raise InputError(self._in_config(_one_line(str(error)))) from error

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The given command alone: building the parsers of all takes four times as long."""
        commands = super().subcommands()
        return {self._command: commands[self._command]} if self._command in commands else commands

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
            with _plainly():
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
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error
        # Not in TRAINER_DEFAULTS: a callback shared by all trainers would keep the last model alive.
        trainer.callbacks[:0] = [RequireFittingState(), SeedEpochs(), NoticeInterruption()]  # type: ignore[attr-defined]
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
        if self.subcommand != "fit" and not options.ckpt_path:
            print(f"no --ckpt_path: {self.subcommand} takes the model as it is built, untrained", file=sys.stderr)

    def before_fit(self) -> None:
        """Refuse what would fail only after a while."""
        require_trainable(self.trainer, self.model, self.datamodule)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise InputError(self._in_config(" ".join(str(error).split()))) from error

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
            run = run_folder(self.trainer) if path.name == CHECKPOINT else path
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
            with _plainly(), logs.quiet():
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
    """Trainer, model and data as ``itmbench test`` builds them, for another use; nothing is logged or saved."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(["test", *arguments, "--trainer.logger=false", "--trainer.enable_progress_bar=false"])

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        self.save_config_callback = None

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""
        self.ckpt_path = self.config[subcommand].ckpt_path


class CellCLI(MatcherCLI):
    """The parsed config of a benchmark cell, with its data; ``make`` builds everything else."""

    best: ModelCheckpoint  # after ``make``, the callback that keeps the checkpoint to test
    _shared_parser: ClassVar[LightningArgumentParser | None] = None

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(args=config, run=False)  # this seeds everything
        self.devices = self._count_devices()
        self._require_validation()
        with _plainly():
            self.data = self.parser.instantiate(Namespace(data=self.config.data)).data

    def setup_parser(self, *arguments: Any) -> None:
        """Build the parser once for all cells, because that takes longer than parsing a config."""
        if CellCLI._shared_parser is None:
            super().setup_parser(*arguments)
            self.parser.set_defaults({"threads": 1})
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
                raise InputError(f"trainer.{name}: there is no {options[name]}; give one of {', '.join(sorted(names))}")

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
        with _plainly():
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


def _one_line(message: str) -> str:
    """The option and the best reason in a message of jsonargparse, which lists every type that it tried."""
    lines = [line.strip(" -") for line in message.splitlines()]
    option = ".".join(line.split('"')[1] for line in lines if line.startswith("Parser key"))
    problems = [at for at, line in enumerate(lines) if line.startswith("Problem with given class_path")]
    reasons = [line for line in lines if line.startswith(("Expected", "Option")) and "NoneType" not in line]
    reasons = [line for line in reasons if not line.startswith("Expected a path")]
    if not option or not (reasons or problems):
        return " ".join(message.split())
    given = next((line.removeprefix("Given value: ") for line in lines if line.startswith("Given value: ")), "")
    # Of several classes that an option takes, the last one named came closest.
    last = [line for line in lines[problems[-1] :] if line in reasons] if problems else []
    reason = (last or reasons or [lines[problems[-1] + 1]])[0]
    class_name = reason.removeprefix("Expected a dot import path string: ")
    if class_name != reason:
        kind = {"model": "methods", "data": "datasets"}.get(option)
        types = [line for line in lines if line.startswith("Subtypes")][-1].split("'")[1::2]
        known = [entry.target for entry in registry.entries(kind)] if kind else types
        names = [name.replace(":", ".").rpartition(".")[2] for name in known if name != "NoneType"]
        short = {entry.name: entry.target.rpartition(":")[2] for entry in registry.entries(kind)} if kind else {}
        if class_name in short:
            return f"{option}: {class_name} is the name in `itmbench list` of the class {short[class_name]}; give that"
        return f"{option}: there is no {class_name}; give one of {', '.join(names)}, or module.Class of your own"
    if reason.startswith("Expected"):
        reason = (
            reason.replace("<class '", "").replace("'>", "").replace("typing.", "").replace(". Got value:", ", got")
        )
        reason = reason.replace("Expected a ", "expected ")
        return f"{option}: {reason}" + ("" if ", got" in reason else f", got {given}")
    return f"{option}: {lines[problems[-1]].split(chr(39))[1].rpartition('.')[2]}: {reason}" if problems else reason


@contextmanager
def _plainly() -> Iterator[None]:
    """Raise a constructor's own message about its input, without what jsonargparse adds."""
    try:
        yield
    except CONSTRUCTOR_ERRORS as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is None:
            raise InputError(_reason(str(error))) from error
        raise cause from cause.__cause__


def _reason(message: str) -> str:
    """The constructor's own words in a message of jsonargparse, which lists every type that it tried."""
    of_parser = ("Does not validate", "Subtypes", "Errors", "Import path", "Expected a <class", "Given value")
    lines = [line.strip(" -") for line in message.splitlines()]
    return next((line for line in lines if line and not line.startswith(of_parser)), " ".join(message.split()))
