"""``itmbench explain``: what test items attach to in MCR-DGN's graph, and whether that matters."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from itmbench.cli.arguments import import_from_here, write_out
from itmbench.cli.fit import lightning_parser
from itmbench.errors import InputError

if TYPE_CHECKING:
    from itmbench.methods.mcr_dgn.explain import Deletion, ExplainedItem

SUMMARY = """\
Show what test items attach to in MCR-DGN's graph: training items, and for their most probable labels the regions or
words that the label attends to. On request, measure the deletion gap: how much more is lost by removing the edges of
highest attention than by removing as many random ones."""
EXAMPLE = "itmbench explain --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt --items im1,t3"
SHOWN = 70
"""Most letters of a text on the screen."""


def run(command: str, arguments: Sequence[str]) -> int:
    """Explain items and measure the deletion gap."""
    parser = lightning_parser(command, SUMMARY, EXAMPLE)
    parser.add_argument(
        "--items", default="", metavar="ID,…", help="test images and texts (default: three images, a text of each)"
    )
    parser.add_argument(
        "--top", type=int, default=5, help="training items, regions and words to show for each (default: 5)"
    )
    parser.add_argument(
        "--draws", type=int, default=0, help="measure the deletion gap with so many draws of random edges"
    )
    parser.add_argument("--out", metavar="FILE", help="JSON file to write everything to")
    options, rest = parser.parse_known_args(arguments or ["--help"])
    for option, least in (("top", 1), ("draws", 0)):
        if getattr(options, option) < least:
            raise InputError(f"--{option} {getattr(options, option)}: give {least} or more")
    if options.out == "":
        raise InputError("--out: names no file; give one")
    import_from_here()

    from itmbench.logs import quiet
    from itmbench.methods.mcr_dgn.explain import attached_bank, explain_items, measure_deletion, select_items
    from itmbench.methods.mcr_dgn.module import MCRDGN
    from itmbench.runner.lightning import PreparedCLI

    cli = PreparedCLI([*rest, "--trainer.fast_dev_run=false", "--trainer.limit_test_batches=0"])
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    if not isinstance(model, MCRDGN):
        raise InputError(f"explain: {type(model).__name__} has no graph to explain; give the config of an MCRDGN")
    if trainer.world_size > 1:
        raise InputError("explain: runs on one device; add --trainer.devices 1")
    corpus = data.corpus
    selected = select_items(corpus, options.items)
    with quiet():
        # No batch: this loads the checkpoint.
        trainer.test(model, datamodule=data, ckpt_path=cli.ckpt_path, verbose=False, weights_only=True)
    attached_bank(model, "image")
    model.to(trainer.strategy.root_device).eval()
    with trainer.precision_plugin.forward_context():
        items = explain_items(model, corpus, selected, options.top)
        deletion = measure_deletion(model, data, options.draws) if options.draws else None
    protocol = model.evaluated_by
    print(f"{corpus.name}, test: what items attach to among {len(model.bank):,} training pairs")
    if not model.graph_at_test:
        print("this checkpoint is tested without its graph; the following is what the graph would do")
    _print_items(items)
    if deletion:
        _print_deletion(deletion, protocol.objective)
    if options.out:
        content = {
            "dataset": corpus.name,
            "fingerprint": corpus.fingerprint,
            "protocol": protocol.as_dict(),
            "graph_at_test": model.graph_at_test,
            "items": [asdict(item) for item in items],
            "deletion": deletion and asdict(deletion) | {"gap": deletion.gap, "spread": deletion.spread},
        }
        write_out(options.out, json.dumps(content, indent=1))
    return 0


def _print_items(items: Sequence["ExplainedItem"]) -> None:
    for item in items:
        print(f"{item.modality} {item.id}{_quoted(item.text)}")
        _print_seen(item.sees, "  ")
        for label in item.labels:
            print(f"  {label['label']}: {label['predicted']:.2f} by the encoder, {label['heard']:.2f} by the graph")
            kind = "words" if item.modality == "text" else "regions"
            parts = ", ".join(f"{part['part']} {part['weight']:.2f}" for part in label["parts"])
            print(f"    {kind}: {parts or 'none'}")
            _print_seen(label["sees"], "    ")


def _print_seen(seen: Sequence[dict[str, Any]], indent: str) -> None:
    for each in seen:
        print(f"{indent}{each['weight']:.3f}  {each['id']}{_quoted(each['text'])}")
    if not seen:
        print(f"{indent}nothing: no mutual neighbour in the bank")


def _print_deletion(deletion: "Deletion", objective: str) -> None:
    """The gap as one number, and its two curves from all edges to none."""
    random = [sum(values) / len(values) for values in zip(*deletion.random, strict=True)]
    print(
        f"deletion gap {deletion.gap:+.4f} {objective} (± {deletion.spread:.4f} between draws): how much more is lost "
        "by removing the edges of highest attention than by removing as many random ones"
    )
    print("  edges removed  " + "".join(f"{share:>9.0%}" for share in (0, *deletion.shares, 1)))
    for name, curve in (("most attention", deletion.strongest), ("random", random)):
        print(f"  {name:<15}" + "".join(f"{value:>9.4f}" for value in (deletion.whole, *curve, deletion.none)))


def _quoted(text: str | None) -> str:
    if text is None:
        return ""
    return f'  "{text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"}"'
