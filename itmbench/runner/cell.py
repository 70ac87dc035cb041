"""One cell: train, test on the best checkpoint, write the result; resume after the last finished epoch."""

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import lightning as L
import pandas as pd
import torch

from itmbench import store
from itmbench.checkpoint import read_checkpoint
from itmbench.data.datamodule import CorpusDataModule
from itmbench.errors import InputError
from itmbench.files import write_atomically
from itmbench.methods.base import Matcher
from itmbench.runner import audit, cost, tracker
from itmbench.runner.callbacks import CheckLease, StopWhenDiverged
from itmbench.runner.cell_cli import CellCLI
from itmbench.runner.key import cell_key, without_switchable
from itmbench.runner.lease import Lease
from itmbench.runner.replay import by_fresh_instance
from itmbench.runner.running import LAST
from itmbench.runner.spec import Cell
from itmbench.runner.watched import watched_test
from itmbench.runner.why import explanations, rounded
from itmbench.store import environment
from itmbench.store.versions import versions

logger = logging.getLogger(__name__)

INDUCTIVE = ("alone", "subset", "replay")
"""Checks that show that every test item is encoded and scored without the others."""


def train(
    cli: CellCLI, folder: Path, callbacks: Sequence[L.Callback]
) -> tuple[L.Trainer, Matcher, CorpusDataModule, float]:
    """Train in a folder, from its last checkpoint on: trainer, model, data, and the best objective on validation."""
    trainer, model = cli.make(folder, [StopWhenDiverged(), *callbacks])
    data = copy.copy(cli.data)  # Lightning attaches the trainer, and with it the model, to the datamodule
    last = folder / LAST
    if last.exists():
        try:
            read_checkpoint(last, map_location="meta")
        except InputError as error:
            logger.warning("    starts over: %s", error)
            last.unlink()
    trainer.fit(model, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    validation = cli.best.best_model_score
    if validation is None:  # no epoch was trained (max_epochs 0): evaluate the model as it is
        trainer.validate(model, data, verbose=False)
        validation = trainer.callback_metrics["val/objective"]
    return trainer, model, data, float(validation)


def train_and_test(cell: Cell, cli: CellCLI, folder: Path, key: str, held: Lease | None = None) -> None:
    """Train and test a cell in its folder, and write the result there on rank 0, which has a lease on it.

    It is called on every device.
    """
    cost.reset_peak_memory()
    meter = cost.Meter()
    tracker.prepare(cli.config, cell)
    trainer, model, data, validation = train(cli, folder, [meter, *([CheckLease(held)] if held else [])])
    config = cli.resolved()
    del config["seed_everything"]
    recipe, training = cell_key(config, data.corpus), cell_key(without_switchable(config, model), data.corpus)
    steps = trainer.global_step if model.trains_by_steps else 0
    best, checkpoint = cli.best.best_model_path or None, folder / store.CHECKPOINT
    test = watched_test(trainer, model, data, ckpt_path=best, checkpoint=checkpoint, examples=True)
    seconds, peak_memory = meter.elapsed() - test.seconds, cost.peak_memory(trainer.strategy.root_device)
    trainer.callbacks.remove(meter)  # type: ignore[attr-defined]
    replay = by_fresh_instance(cli.make_model)
    findings = {f.name: f for f in audit.quick_audit(trainer, model, data, test, checkpoint, replay)}
    if not trainer.is_global_zero:
        return
    explained = None
    if test.examples is not None:
        with trainer.precision_plugin.forward_context():
            explained = explanations(model, data.corpus, test.examples.queries)
    if held:
        held.check(on_disk=True)
    evaluation = test.reported
    pd.DataFrame(evaluation.per_query).to_parquet(folder / store.PER_QUERY)
    if test.examples is not None:
        write_atomically(folder / store.EXAMPLES, json.dumps(asdict(test.examples)))
    if explained is not None:
        write_atomically(folder / store.EXPLANATIONS, json.dumps(rounded(asdict(explained))))
    corpus = data.corpus
    result = store.Result(
        key=key,
        benchmark=cell.benchmark,
        dataset=cell.dataset,
        method=cell.method,
        seed=cell.seed,
        metrics=evaluation.metrics,
        validation=validation,
        protocol=model.evaluated_by.as_dict(),
        data={
            "name": corpus.name,
            "fingerprint": corpus.fingerprint,
            "counts": [asdict(count) for count in corpus.counts],
        },
        pretraining=model.pretraining,
        inductive=all(findings[name].passed for name in INDUCTIVE),
        parameters=cost.parameters(model),
        flops=meter.flops,
        throughput=meter.throughput(),
        peak_memory=peak_memory,
        seconds=seconds,
        epochs=trainer.current_epoch,
        hardware=environment.hardware(trainer) | ({"half_tokens": True} if test.tokens == torch.float16 else {}),
        versions=versions(),
        git=environment.git_state(),
        finished=datetime.now(UTC).isoformat(timespec="microseconds"),
        recipe=recipe,
        training=training,
        steps=steps,
        budget=cost.budget(trainer, data.batch_size) if steps else {},
        choices=model.choices,
        trials=cell.trials,
        audit={name: finding.as_dict() for name, finding in findings.items()},
    )
    if held:
        held.check(on_disk=True)
    result.save(folder)  # last and atomically: if result.json exists, every other file is complete
    tracker.publish(trainer, result, folder)
