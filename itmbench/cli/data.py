"""``itmbench data prepare|verify NAME``: download, unpack and check a dataset before any training."""

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itmbench.cli.arguments import Parser, path, refused, write_out
from itmbench.errors import InputError, InputErrors, MissingImages, choice
from itmbench.logs import Progress
from itmbench.runner import registry

if TYPE_CHECKING:
    from itmbench.data.corpus import Corpus, ImageFiles

log = logging.getLogger(__name__)

SHOWN = 20
"""Problems that are listed on the screen."""


def run(command: str, arguments: Sequence[str]) -> int:
    """Bring a dataset onto the disk, or check it, and print its counts beside the published ones."""
    parser = Parser(
        command,
        description="prepare  download and unpack flickr30k, flickr8k, coco, mirflickr25k or nuswide, and parse any "
        "dataset into the cache;\n         an interrupted call resumes\n"
        "verify   read a dataset and print its counts beside the published ones",
        example="itmbench data prepare mirflickr25k --root data/mirflickr25k\n"
        "itmbench data prepare flickr8k --root data/flickr8k --from ~/Downloads\n"
        "itmbench data verify coco --root data/coco --deep --json problems.json\n"
        "itmbench data verify nuswide --help    # the dataset's own options",
    )
    parser.add_argument("action", choices=["prepare", "verify"])
    parser.add_argument("name", metavar="NAME", help="one of these datasets, or of `itmbench list`")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTIONS", help="its own, such as --root DIR")
    options = parser.parse_args(arguments)

    from itmbench.data.sources import SOURCES

    names = dict.fromkeys((*SOURCES, *(entry.name for entry in registry.entries("datasets"))))
    if options.name not in names:
        raise InputError(f"{options.name}: no such dataset; {choice(options.name, names)}")
    source = SOURCES.get(options.name)
    dataset = registry.find("datasets", source.reader if source else options.name).load()
    own = _own_options(f"itmbench data {options.action} {options.name}", dataset, options.options, options.action)
    given, deep, listed = own.pop("from", None), own.pop("deep", False), own.pop("json", None)

    def read() -> "Corpus":
        return dataset(**own).corpus

    started = time.perf_counter()
    if options.action == "verify":
        _verify(read, deep, listed)
    else:
        if source:
            from itmbench.data.prepare import prepare

            prepare(options.name, source, Path(own["root"]), given and Path(given), lambda: _is_complete(read))
        elif given:
            raise InputError(f"--from: {options.name} has no archives; leave the option out")
        print(describe(read()))
    print(f"{options.action}: done in {time.perf_counter() - started:.1f} s")
    return 0


def _own_options(prog: str, dataset: type, options: Sequence[str], action: str) -> dict[str, Any]:
    """The dataset's options, and those of the action."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False)
    if action == "prepare":
        parser.add_argument("--from", type=path, metavar="DIR", help="folder with archives that you already have")
    else:
        parser.add_argument("--deep", action="store_true", help="decode every image")
        parser.add_argument("--json", metavar="FILE", help="write what was found and all that is wrong as JSON")
    parser.add_class_arguments(dataset, as_positional=False)
    try:
        return parser.parse_args(list(options)).as_dict()
    except ArgumentError as error:
        message = " ".join(str(error).split()).replace("are required: ", "are required: --")
        raise InputError(refused(prog, message, parser._option_string_actions)) from None


def _is_complete(read: Callable[[], "Corpus"]) -> bool:
    try:
        return read().images is not None
    except InputError:
        return False


def describe(corpus: "Corpus") -> str:
    """Lines with the name, the fingerprint and the counts, beside the published counts where there are any."""
    lines = [f"{corpus.name}  fingerprint {corpus.fingerprint}"]
    for count in corpus.counts:
        published = "" if count.published is None else f"   published {count.published:>9,}"
        differs = "" if count.published in (None, count.found) else "   DIFFERS"
        lines.append(f"  {count.what:<28} {count.found:>9,}{published}{differs}")
    if corpus.images is None:
        lines.append("  no images here: texts and labels only")
    return "\n".join(lines)


def _verify(read: Callable[[], "Corpus"], deep: bool, listed: str | None) -> None:
    """Print what a dataset holds; write that and all problems to the JSON file ``listed``."""
    from itmbench.data.cache import inputs_read
    from itmbench.data.corpus import ImageFiles

    found: dict[str, Any] = {"dataset": None, "fingerprint": None, "counts": [], "images": 0, "decoded": False}
    problems: list[tuple[str | None, str]] = []
    missing: Sequence[str] = ()
    try:
        with inputs_read() as inputs:
            corpus = read()
        counts = [{"what": count.what, "found": count.found, "published": count.published} for count in corpus.counts]
        found |= {"dataset": corpus.name, "fingerprint": corpus.fingerprint, "counts": counts}
        print(describe(corpus))
        missing = corpus.missing
        if isinstance(corpus.images, ImageFiles):
            found |= {"images": len(corpus.images), "decoded": deep}
            problems = _unreadable(corpus.images) if deep else []
        refusal = f"{corpus.name}: {len(problems)} of {found['images']:,} images cannot be read; replace them"
    except InputError as error:
        names = error.names if isinstance(error, MissingImages) else []
        lines = error.lines if isinstance(error, InputErrors) else [str(error)]
        problems = [(name, "missing") for name in names] or [(None, line) for line in lines]
        refusal = str(error)
    if listed:
        found |= {"dropped": list(missing), "problems": [{"file": file, "problem": text} for file, text in problems]}
        write_out(listed, json.dumps(found, indent=1) + "\n", inputs)
    for name in missing[:SHOWN]:
        print(f"left out, its image is missing: {name}")
    for file, text in problems[:SHOWN] if len(problems) > 1 or found["images"] else ():
        print(f"{file}: {text}")
    if problems:
        raise InputError(refusal)
    if found["images"]:
        print(f"all {found['images']:,} images " + ("can be read" if deep else "are there; --deep decodes them"))


def _unreadable(images: "ImageFiles") -> list[tuple[str | None, str]]:
    """File and problem of each image that cannot be decoded."""
    progress = Progress(log, "decoding images", len(images))

    def problem(row: int) -> str | None:
        try:
            images[row]
        except InputError as error:
            return str(error)
        return None

    problems: list[tuple[str | None, str]] = []
    with ThreadPoolExecutor() as pool:
        for name, text in zip(images.names, pool.map(problem, range(len(images))), strict=True):
            progress.advance()
            if text:
                problems.append((name, text))
    return problems
