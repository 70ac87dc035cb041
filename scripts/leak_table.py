"""What each leak of the tests gains on a mini corpus, and which checks catch it, as a Markdown table.

    python scripts/leak_table.py --epochs 2

A dual encoder is trained for a few epochs on flickr30k-mini and on nuswide-mini; each leaky method takes its weights.
The checks are those of ``itmbench audit``; the ones that a cell goes through are in bold.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import lightning as L
import torch

from itmbench.data.datasets import Flickr30KMini, NUSWideMini
from itmbench.evaluation.canaries import part
from itmbench.logs import quiet
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.runner.audit import audit
from itmbench.runner.watched import watched_test

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import toy_leaks
import toy_oracles
import toy_statistics

QUICK = {"alone", "pairs", "frozen", "protocol", "subset", "blind", "replay"}
AUDITED = 60
"""Test images of the audit."""
LABELS_ONLY = {"SharedLabels", "GalleryLabels", "LabelBank"}
LEFT_OUT = {"DualEncoder", "Oracle", "Caching", "IdOracle"}
"""Bases, and a method that reads the ids of the tests' own corpus."""


def trainer(folder: str, epochs: int = 1) -> L.Trainer:
    return L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2, help="training of the dual encoder (default: 2)")
    parser.add_argument("--images", type=int, default=300, help="test images of the figures (default: 300)")
    options = parser.parse_args()
    methods = [
        each
        for module in (toy_leaks, toy_oracles, toy_statistics)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, DualEncoder) and each.__name__ not in LEFT_OUT
    ]
    print("| method | leak | rSum, flickr30k-mini | mAP, nuswide-mini | caught by |\n|---|---|---:|---:|---|")
    trained = {}
    with tempfile.TemporaryDirectory() as folder, quiet():
        for data in (Flickr30KMini(num_workers=0), NUSWideMini(num_workers=0)):
            torch.manual_seed(0)
            model = DualEncoder(dim=128)
            trainer(folder, options.epochs).fit(model, data)
            small = data.with_corpus(part(data.corpus, options.images))
            test = watched_test(trainer(folder), model, small)
            trained[data] = model.state_dict(), small, test.reported.metrics[test.reported.objective]
        honest = [f"{value:.3g}" for _, _, value in trained.values()]
        print(f"| `DualEncoder` | none | {honest[0]} | {honest[1]} | |", flush=True)
        for method in methods:
            gains, caught = ["", ""], set[str]()
            for number, (data, (state, small, before)) in enumerate(trained.items()):
                if number == 0 and method.__name__ in LABELS_ONLY:
                    continue
                model = method(dim=128)
                model.adapt(data.corpus)
                model.load_state_dict(state, strict=False)
                if number == 0 or method.__name__ in LABELS_ONLY:
                    few = small.with_corpus(part(small.corpus, AUDITED))
                    caught = {finding.name for finding in audit(trainer(folder), model, few) if not finding.passed}
                    model.load_state_dict(state, strict=False)
                if issubclass(method, toy_leaks.LabelBank | toy_leaks.CentredByAll):
                    trainer(folder).validate(model, small, verbose=False)
                metrics = watched_test(trainer(folder), model, small).reported.metrics
                gains[number] = f"{metrics[model.evaluated_by.objective] - before:+.3g}"
            names = ", ".join(f"**{name}**" if name in QUICK else name for name in sorted(caught))
            says = (method.__doc__ or "").splitlines()[0]
            print(f"| `{method.__name__}` | {says} | {gains[0]} | {gains[1]} | {names} |", flush=True)


if __name__ == "__main__":
    main()
