"""``itmbench explain``: why a pair has its score, by words and regions, and what items attach to in a graph."""

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itmbench.cli.arguments import add_out, imports, write_out
from itmbench.cli.fit import lightning_parser, parse
from itmbench.errors import InputError

if TYPE_CHECKING:
    from itmbench.methods.base import Modality
    from itmbench.methods.explanations import ExplainedItem, ExplainedPair, Seen
    from itmbench.methods.mcr_dgn.deletion import Deletion
    from itmbench.runner.lightning import PreparedCLI

SUMMARY = """\
SEDRA, SCAN, SGRAF: show what each word of a text finds in an image, and what the paths add to the score.
MCR-DGN: show what items attach to in the graph: training items, and for their most probable labels the regions or
words that the label attends to. On request, measure the deletion gap: how much more is lost by removing the edges of
highest attention than by removing as many random ones."""
EXAMPLE = "itmbench explain results/mini/flickr30k-mini/sedra/seed0 --count 2 --out why.html"
SHOWN = 70
"""Most letters of a text on the screen."""
MODALITIES: "tuple[Modality, ...]" = ("image", "text")
FORMATS = (".json", ".html", ".png")
REGIONS = "regions by row and column of the grid over the photograph, from the top left; without a grid, by number"
OF_PAIRS = (
    "words: share of the text, the word, how well it finds a region, and the regions with their shares in that\n"
    + REGIONS
)
OF_ITEMS = (
    "items: share in what the node receives, training item; labels: probability by the encoder and by the graph, what "
    "the label\nattends to with its attention, and what its node attaches to\n" + REGIONS
)


def run(command: str, arguments: Sequence[str]) -> int:
    """Explain items and measure the deletion gap."""
    parser = lightning_parser(command, SUMMARY, EXAMPLE)
    parser.add_argument(
        "--items",
        default=[],
        type=_ids,
        metavar="ID,…",
        help="test images and texts (default: the first images, a text of each)",
    )
    parser.add_argument("--count", type=int, default=3, metavar="N", help="how many images by default (default: 3)")
    parser.add_argument("--image", nargs="+", default=[], metavar="FILE", help="own photographs; pairs need --text")
    parser.add_argument("--text", nargs="+", default=[], metavar="TEXT", help="own texts; pairs need --image")
    parser.add_argument(
        "--top", type=int, default=5, help="training items, regions and words to show for each (default: 5)"
    )
    parser.add_argument(
        "--draws", type=int, default=0, help="MCR-DGN: measure the deletion gap, with this many draws of random edges"
    )
    add_out(parser, "file to write: numbers (.json), a page (.html) or a picture (.png)")
    options, rest = parse(parser, arguments)
    for option, least in (("top", 1), ("count", 1), ("draws", 0)):
        if getattr(options, option) < least:
            raise InputError(f"--{option} {getattr(options, option)}: give {least} or more")
    if options.out is not None and Path(options.out).suffix not in FORMATS:
        raise InputError(f"--out {options.out}: give a name that ends in {', '.join(FORMATS)}")
    if options.items and (options.image or options.text):
        raise InputError("explain: give --items of the dataset, or --image and --text of your own")

    with imports():
        from itmbench.checkpoint import read_checkpoint
        from itmbench.data.cache import inputs_read
        from itmbench.methods.explained import ExplainsItems, ExplainsPairs
        from itmbench.options import restoring
        from itmbench.runner.given import config_files
        from itmbench.runner.lightning import PreparedCLI

    with restoring():  # weights come from the checkpoint
        cli = PreparedCLI(
            [*rest, "--trainer.fast_dev_run=false", "--trainer.limit_test_batches=0"], command, [*vars(options)]
        )
    model = cli.model
    if not isinstance(model, ExplainsItems | ExplainsPairs):
        raise InputError(
            f"explain: {type(model).__name__} has nothing to show; give a method such as SEDRA, SCAN, SGRAF or MCRDGN"
        )
    if cli.trainer.world_size > 1:
        raise InputError("explain: runs on one device; add --trainer.devices 1")
    if not cli.ckpt_path:
        raise InputError("explain: give the folder of a trained model")
    cli.model.restored(read_checkpoint(cli.ckpt_path)).to(cli.trainer.strategy.root_device).eval()
    explain = _graph if isinstance(model, ExplainsItems) else _pairs
    with cli.trainer.precision_plugin.forward_context(), inputs_read() as inputs:
        explained, files, content = explain(cli, options)
    inputs += [*files.values(), *map(Path, [cli.ckpt_path, *config_files(rest)])]
    if options.out and options.out.endswith(".json"):
        content |= {"files": {id_: str(file) for id_, file in files.items()}}
        write_out(options.out, json.dumps(content, indent=1), inputs)
    elif options.out and options.out.endswith(".html"):
        from itmbench.report.why import why_page

        write_out(options.out, why_page(content["method"], explained, files), inputs)
    elif options.out:
        from itmbench.report.explanation import explanation_rows
        from itmbench.report.sheet import sheet_png

        write_out(options.out, sheet_png(explanation_rows(explained, files)), inputs)
    if options.out:
        print(f"Written: {options.out}")
    return 0


def _pairs(cli: "PreparedCLI", options: Namespace) -> "tuple[list[ExplainedPair], dict[str, Path], dict[str, Any]]":
    """Explain pairs: of the dataset, images with their first texts and texts with their images."""
    from itmbench.methods.explained import corpus_items, explain_pairs, own_items, photographs, select_items

    model, method = cli.model, type(cli.model).__name__
    if options.draws:
        raise InputError(f"--draws: measures MCR-DGN's graph, and this is a {method}; leave it out")
    if options.image or options.text:
        if not (options.image and options.text):
            raise InputError(f"explain: {method} explains pairs; give --image and --text")
        own = [(image, text) for image in options.image for text in options.text]
        images, texts = (
            own_items(model, modality, [pair[at] for pair in own]) for at, modality in enumerate(MODALITIES)
        )
        corpus = None
    else:
        corpus = cli.datamodule.corpus
        selected = select_items(corpus, options.items, options.count)
        rows = [(image, int(corpus.texts_of_image[image][0])) for image in selected["image"]]
        rows += [(int(corpus.text_to_image[text]), text) for text in selected["text"]]
        rows = list(dict.fromkeys(rows))
        images, texts = (
            corpus_items(model, corpus, modality, [pair[at] for pair in rows]) for at, modality in enumerate(MODALITIES)
        )
    pairs = explain_pairs(model, images, texts)
    print(OF_PAIRS)
    for pair in pairs:
        _print_pair(pair, options.top)
    files = {path: Path(path) for path in options.image} if corpus is None else photographs(corpus, pairs)
    name = "of your own" if corpus is None else corpus.name
    return pairs, files, {"method": method, "dataset": name, "pairs": [asdict(pair) for pair in pairs]}


def _graph(cli: "PreparedCLI", options: Namespace) -> "tuple[list[ExplainedItem], dict[str, Path], dict[str, Any]]":
    """Explain items by the training items that they attach to."""
    from itmbench.evaluation.protocol import protocol_for
    from itmbench.logs import quiet
    from itmbench.methods.explained import corpus_items, own_items, photographs, select_items
    from itmbench.methods.mcr_dgn.deletion import measure_deletion
    from itmbench.methods.mcr_dgn.module import MCRDGN

    model, data, method = cli.model, cli.datamodule, type(cli.model).__name__
    if options.draws and not isinstance(model, MCRDGN):
        raise InputError(f"--draws: measures MCR-DGN's graph, and this is a {method}; leave it out")
    corpus = data.corpus
    if options.image or options.text:
        own = {"image": options.image, "text": options.text}
        chosen = [own_items(model, modality, own[modality]) for modality in MODALITIES if own[modality]]
    else:
        rows = select_items(corpus, options.items, options.count)
        chosen = [corpus_items(model, corpus, modality, rows[modality]) for modality in MODALITIES if rows[modality]]
    items = [each for some in chosen for each in model.explain_items(corpus, some, options.top)]
    if isinstance(model, MCRDGN):
        print(f"{corpus.name}, test: what items attach to among {len(model.bank):,} training pairs")
    if not model.graph_at_test:
        print("this checkpoint is tested without its graph; the following is what the graph would do")
    print(OF_ITEMS)
    _print_items(items)
    deletion, protocol = None, model.protocol or protocol_for(corpus)
    if options.draws:
        with quiet():  # no batch: this hands the data to the model
            cli.trainer.test(model, datamodule=data, verbose=False)
        model.eval()
        deletion = measure_deletion(model, data, options.draws)
        _print_deletion(deletion, protocol.objective)
    files = photographs(corpus, items) | {path: Path(path) for path in options.image}
    return (
        items,
        files,
        {
            "method": method,
            "dataset": corpus.name,
            "fingerprint": corpus.fingerprint,
            "protocol": protocol.as_dict(),
            "graph_at_test": model.graph_at_test,
            "items": [asdict(item) for item in items],
            "deletion": deletion and asdict(deletion) | {"gap": deletion.gap, "spread": deletion.spread},
        },
    )


def _ids(text: str) -> list[str]:
    return text.split(",") if text else []


def _print_pair(pair: "ExplainedPair", top: int) -> None:
    from itmbench.methods.explanations import region_name

    print(f"image {pair.image}  text {pair.text_id}{_quoted(pair.text)}")
    print(f"  score {pair.score:z.2f} = " + " + ".join(f"{name} {logit:z.2f}" for name, logit in pair.paths.items()))
    for word in pair.words:
        weights = {"whole image": word.whole}
        weights |= {region_name(at, pair.grid): weight for at, weight in enumerate(word.regions)}
        best = sorted(weights, key=lambda name: -weights[name])[:top]
        named = ", ".join(f"{name} {weights[name]:.2f}" for name in best)
        print(f"  {word.share:.2f} {word.word:<14} found {word.found:.2f}: {named}")


def _print_items(items: Sequence["ExplainedItem"]) -> None:
    for item in items:
        print(f"{item.modality} {item.id}{_quoted(item.text)}")
        _print_seen(item.sees, "  ")
        for label in item.labels:
            print(f"  {label.label}: {label.predicted:.2f} by the encoder, {label.received:.2f} by the graph")
            print(f"    {item.looks_at(label)}")
            _print_seen(label.sees, "    ")


def _print_seen(seen: Sequence["Seen"], indent: str) -> None:
    for each in seen:
        print(f"{indent}{each.weight:.3f}  {each.id}{_quoted(each.text)}")
    if not seen:
        print(f"{indent}nothing in the bank")


def _print_deletion(deletion: "Deletion", objective: str) -> None:
    """The gap as one number, and its two curves from all edges to none."""
    random = [sum(values) / len(values) for values in zip(*deletion.random, strict=True)]
    print(
        f"deletion gap {deletion.gap:+z.4f} {objective} (± {deletion.spread:.4f} between draws): how much more is lost "
        "by removing the edges of highest attention than by removing as many random ones"
    )
    print("  edges removed  " + "".join(f"{share:>9.0%}" for share in (0, *deletion.shares, 1)))
    for name, curve in (("most attention", deletion.strongest), ("random", random)):
        print(f"  {name:<15}" + "".join(f"{value:>z9.4f}" for value in (deletion.whole, *curve, deletion.none)))


def _quoted(text: str | None) -> str:
    if text is None:
        return ""
    return f'  "{text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"}"'
