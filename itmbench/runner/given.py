"""Configs and folders as the user gave them: what is refused before LightningCLI reads or writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Timer

from itmbench.data.datamodule import CorpusDataModule
from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol, protocol_for
from itmbench.methods.base import Matcher
from itmbench.runner.registry import find_config_file
from itmbench.runner.yaml_files import load_yaml

LOWER_IS_BETTER = ("/loss", "/MedR", "/MeanR", "/queries_without_relevant")
"""Endings of metrics."""


def config_files(arguments: Any) -> list[str]:
    """The files that ``--config`` names among the arguments of a command."""
    if not isinstance(arguments, Sequence):
        return []
    words = [str(word) for word in arguments]
    apart = [value for option, value in pairwise(words) if option in ("--config", "-c")]
    return apart + [word.partition("=")[2] for word in words if word.startswith("--config=")]


def with_packaged_configs(arguments: Any) -> Any:
    """The arguments of a command, with the path of a packaged config for "configs/…" where there is no such file.

    Raises:
        InputError: there is no such config.
    """
    if not isinstance(arguments, Sequence):
        return arguments
    words = [str(word) for word in arguments]
    for at, (option, word) in enumerate(pairwise(["", *words])):
        if option in ("--config", "-c"):
            words[at] = str(find_config_file(word))
        elif word.startswith("--config="):
            words[at] = f"--config={find_config_file(word.partition('=')[2])}"
    return words


def require_sound_configs(arguments: Any) -> None:
    """Check what jsonargparse would silently accept or crash on: YAML without end, an ambiguous protocol.

    ``arguments`` are those of a command, or the config of a cell.

    Raises:
        InputError: names the file.
    """
    if isinstance(arguments, Mapping):
        _require_decided_protocol(_protocol_of(arguments), "model.protocol")
        return
    given, where = list[set[str] | None](), "--model.protocol"
    for file in config_files(arguments):
        given.append(_protocol_of(load_yaml(Path(file))))
        where = where if given[-1] is None else f"{file}: model.protocol"
    words = [str(word) for word in arguments or ()]
    for word, after in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option == "--model.protocol":
            given.append(_protocol_of({"model": {"protocol": _plain_yaml(value if equals else after)}}))
        elif option.startswith("--model.protocol."):
            given.append({option.rpartition(".")[2]})
    parts = [names for names in given if names is not None]
    _require_decided_protocol(set().union(*parts) if parts else None, where)


def _plain_yaml(text: str) -> Any:
    """A value of the command line; what is not YAML is left to the parser, which reports it better."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _protocol_of(config: Any) -> set[str] | None:
    """Names of the options that a config gives for the protocol; "class_path" if it names the class; None without."""
    model = config.get("model") if isinstance(config, Mapping) else None
    arguments = model.get("init_args", model) if isinstance(model, Mapping) else None
    protocol = arguments.get("protocol") if isinstance(arguments, Mapping) else None
    if isinstance(protocol, str):
        return {"class_path"}
    return set(protocol) if isinstance(protocol, Mapping) else None


def _require_decided_protocol(names: set[str] | None, where: str) -> None:
    """Refuse options that both protocols have: jsonargparse would take the first, captions, for any data."""
    captions, labels = ({field.name for field in fields(kind)} for kind in (CaptionProtocol, LabelProtocol))
    if names is not None and names <= captions & labels:
        raise InputError(
            f"{where}: {', '.join(sorted(names)) or '{}'} may mean captions or labels; leave it out for the protocol "
            "of the data, or add an option of one of them, such as ks or cutoffs"
        )


def require_unused(files: Sequence[Path]) -> None:
    """Raise an InputError if a new run would replace a file of another one."""
    there = next((path for path in files if path.exists()), None)
    if there is not None:
        raise InputError(
            f"{there}: belongs to another run, or is yours; give this run another --trainer.default_root_dir, or "
            "resume that one with --ckpt_path and its last.ckpt"
        )


def require_loss(model: Matcher, max_epochs: int | None) -> None:
    """Raise an InputError if a model that is to be trained has no loss."""
    lossless = type(model).training_loss is Matcher.training_loss and not hasattr(model, "loss")
    if lossless and model.trains_by_steps and max_epochs != 0:
        raise InputError(
            f"{type(model).__name__}: has no loss to train with; set self.loss or override training_loss in the class; "
            "if there is nothing to train, set trainer.max_epochs to 0"
        )


def require_trainable(trainer: L.Trainer, model: Matcher, data: CorpusDataModule) -> None:
    """Check what Lightning would notice late: before the first batch, or after the first epoch.

    Raises:
        InputError: the model has no loss, validation would never come, or a callback waits for an unknown metric.
    """
    require_loss(model, trainer.max_epochs)
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]
    if timer is not None and (timer.time_remaining() or 0) <= 0:
        raise InputError("trainer.max_time: leaves no time to train; give more, such as 00:12:00:00 for twelve hours")
    in_all = len(data.training_texts(trainer.world_size)) // (data.batch_size * trainer.world_size)
    limit, interval = trainer.limit_train_batches, trainer.val_check_interval
    batches = min(in_all, limit) if isinstance(limit, int) else int(in_all * limit)
    if not batches:
        raise InputError(f"trainer.limit_train_batches: {limit} of {in_all} batches leaves none; give more")
    steps = interval if isinstance(interval, int) else int(batches * interval)
    if steps < 1 or (steps > batches and trainer.check_val_every_n_epoch is not None):
        raise InputError(
            f"trainer.val_check_interval: {interval}, but an epoch has {batches} batches; give 1 to {batches}, or more "
            "and set trainer.check_val_every_n_epoch to null"
        )
    _require_known_monitors(trainer, model, data)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor, mode = getattr(callback, "monitor", None) or "", getattr(callback, "mode", None)
        better = "min" if monitor.endswith(LOWER_IS_BETTER) else "max"
        if monitor.startswith(("val/", "train/")) and mode in ("min", "max") and mode != better:
            raise InputError(
                f"{type(callback).__name__} of {monitor}: would take worse for better; set mode to {better}"
            )


def _require_known_monitors(trainer: L.Trainer, model: Matcher, data: CorpusDataModule) -> None:
    """Check the metrics that callbacks wait for, if nobody else's code can log metrics of its own."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    monitors = {monitor for callback in callbacks if (monitor := getattr(callback, "monitor", None))}
    known = {"train/loss", "val/objective"}
    ours = all(type(part).__module__.startswith(("itmbench.", "lightning.")) for part in (model, *callbacks))
    if not ours or monitors <= known:
        return
    images = data.stage("val").images
    # Any vectors give the names; random ones would shift the random numbers of the training.
    image, text = (Embeddings(torch.ones(len(rows), 1)) for rows in (images, data.corpus.texts_of(images)))
    protocol = model.protocol or protocol_for(data.corpus)
    known |= {f"val/{name}" for name in protocol.evaluate(data.corpus, "val", image, text).metrics}
    for monitor in sorted(monitors - known):
        raise InputError(f"{monitor}: no metric that a callback can monitor; give one of {', '.join(sorted(known))}")
