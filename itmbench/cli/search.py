"""``itmbench search``: rank your own photographs for sentences, or sentences for a photograph."""

import logging
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from itmbench.cli.arguments import Parser, add_out, imports, write_out
from itmbench.errors import InputError

if TYPE_CHECKING:
    from itmbench.report.sheet import Row

logger = logging.getLogger(__name__)

EXAMPLE = """\
itmbench search --model results/mini/flickr30k-mini/sedra/seed0 --gallery photos "two dogs run on a beach"
itmbench search --model best.ckpt --gallery photos "a red car" "a wedding" --top 20 --out found.html
itmbench search --model best.ckpt --gallery photos --serve    # a page to search in
itmbench search --model best.ckpt --image photo.jpg --texts captions.txt"""
SHOWN = 10
"""Photographs that cannot be read, named on the screen."""


def run(command: str, arguments: Sequence[str]) -> int:
    """Search, print paths and scores, and write a contact sheet."""
    parser = Parser(
        command,
        description="Rank the photographs below a folder for sentences, or the lines of a file for a photograph, by "
        "the score of a trained\nmethod. Photographs are encoded once, into the cache (ITMBENCH_CACHE, by default "
        "~/.cache/itmbench), and again\nwhen they change.",
        example=EXAMPLE,
    )
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="what to look for")
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="a cell's folder, a run's folder or a checkpoint"
    )
    parser.add_argument("--gallery", metavar="DIR", help="folder with photographs, also in subfolders")
    parser.add_argument("--image", metavar="FILE", help="a photograph to find sentences for")
    parser.add_argument("--texts", metavar="FILE", help="the sentences, one a line")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="results of each query (default: %(default)s)")
    parser.add_argument(
        "--serve", nargs="?", type=int, const=8765, metavar="PORT", help="search in a page on this machine instead"
    )
    add_out(parser, "contact sheet to write: .html or .png")
    options = parser.parse_args(arguments or ["--help"])
    if options.top < 1:
        raise InputError(f"--top {options.top}: give 1 or more")
    if options.out is not None and Path(options.out).suffix not in (".html", ".png"):
        raise InputError(f"--out {options.out}: give a name that ends in .html or .png")
    of_image = options.image is not None or options.texts is not None
    if of_image == (options.gallery is not None) or (of_image and not (options.image and options.texts)):
        raise InputError("search: give --gallery DIR and sentences, or --image FILE and --texts FILE")
    if options.gallery and options.out and options.out.endswith(".png"):
        from itmbench.files import real_path

        if real_path(options.out).is_relative_to(real_path(options.gallery)):
            raise InputError(
                f"--out {options.out}: would be a photograph of --gallery {options.gallery}; name another folder"
            )
    if options.serve is not None:
        if of_image or options.sentences or options.out:
            raise InputError(
                "--serve: the page asks for sentences and shows the sheet; give --model and --gallery alone"
            )
        return _serve(options)
    if bool(options.sentences) == of_image or not all(text.strip() for text in options.sentences):
        raise InputError(
            "search: " + ("give no sentences beside --texts" if of_image else "give a sentence to look for")
        )
    found = _texts(options) if of_image else _gallery(options)(options.sentences)
    for row in found:
        print(row.title if row.picture else f'"{row.title}"')
        for place, cell in enumerate(row.cells, 1):
            print(f"{place:>4}  {cell.number:>8}  " + (cell.line if cell.picture else f'"{cell.line}"'))
    if options.out:
        from itmbench.report.sheet import sheet

        inputs = [options.image, options.texts] if of_image else []
        write_out(options.out, sheet(f"Search: {found[0].title}", found, options.out), inputs)
        print(f"Written: {options.out}")
    return 0


def _gallery(options: Namespace) -> "Callable[[Sequence[str]], list[Row]]":
    """Encode the gallery; what finds its best photographs for each of some sentences."""
    with imports():
        from itmbench.encoders import TextEncoder
        from itmbench.report.sheet import Cell, Row, shown
        from itmbench.store.index import load_with_index

    folder = Path(options.gallery)
    try:
        model, index = load_with_index(options.model, folder)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("the same command resumes") from error
    for name, reason in [*index.broken.items()][:SHOWN]:
        logger.warning("%s: skipped, %s", shown(folder / name), reason)
    if len(index.broken) > SHOWN:
        logger.warning("%s: skipped %d photographs in all", folder, len(index.broken))
    logger.info("%d photographs to search", len(index.names))
    paths = [folder / name for name in index.names]

    def search(sentences: Sequence[str]) -> list[Row]:
        notes = model.text.unread(sentences) if isinstance(model.text, TextEncoder) else [""] * len(sentences)
        ranking = model.rank(model.encode_texts(sentences), index.images)
        return [
            Row(text, [Cell(shown(paths[row]), f"{score:z.4f}", paths[row]) for row, score in best], note)
            for text, best, note in zip(sentences, ranking.best(options.top), notes, strict=True)
        ]

    return search


def _serve(options: Namespace) -> int:
    """Answer the page until interrupted."""
    from itmbench.cli.serve import ADDRESS, server

    search = _gallery(options)
    with server(lambda sentence: search([sentence]), f"Search: {options.gallery}", options.serve) as serving:
        print(f"http://{ADDRESS}:{serving.server_port}/  (end with Ctrl-C)", flush=True)
        with suppress(KeyboardInterrupt):
            serving.serve_forever()
    return 0


def _texts(options: Namespace) -> "list[Row]":
    """The best lines of the file for the photograph."""
    with imports():
        from itmbench.data.reading import read_lines
        from itmbench.report.sheet import Cell, Row, shown
        from itmbench.store.checkpoint import load
        from itmbench.store.index import require_photographs

    texts = list(dict.fromkeys(line.strip() for line in read_lines(Path(options.texts)) if line.strip()))
    if not texts:
        raise InputError(f"{options.texts}: holds no text; give a file with a sentence a line")
    model = load(options.model)
    require_photographs(model)
    image = model.encode_images([options.image])
    [best] = model.rank(image, model.encode_texts(texts)).best(options.top)
    cells = [Cell(texts[row], f"{score:z.4f}") for row, score in best]
    return [Row(shown(options.image), cells, picture=Path(options.image))]
