"""``itmbench data prepare|verify NAME``: prepare or check a dataset before any training."""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from itmbench.cli.arguments import Parser
from itmbench.errors import InputError
from itmbench.runner import registry

if TYPE_CHECKING:
    from itmbench.data.corpus import Corpus, ImageFiles

SHOWN = 20
"""Unreadable images that are listed."""


def run(command: str, arguments: Sequence[str]) -> int:
    """Read a dataset and print its counts beside the published ones; ``verify`` also decodes every image."""
    parser = Parser(
        command,
        description="Read a dataset, render or parse it into the cache, and print its counts beside the published "
        "ones. verify also decodes every image.",
        example="itmbench data verify captions --root data/flickr30k\nitmbench data prepare flickr30k-mini\n"
        "itmbench data verify captions --help    # the dataset's own options",
    )
    parser.add_argument("action", choices=["prepare", "verify"])
    parser.add_argument("name", metavar="NAME", help="a dataset of `itmbench list`")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTIONS", help="its own, such as --root DIR")
    options = parser.parse_args(arguments)
    entry = registry.find("datasets", options.name)

    from jsonargparse import ArgumentError, ArgumentParser

    from itmbench.data.corpus import ImageFiles

    dataset = entry.load()
    prog = f"itmbench data {options.action} {options.name}"
    dataset_parser = ArgumentParser(prog=prog, exit_on_error=False)
    dataset_parser.add_class_arguments(dataset, as_positional=False)
    try:
        arguments_of_dataset = dataset_parser.parse_args(options.options).as_dict()
    except ArgumentError as error:
        raise InputError(f"{prog}: {' '.join(str(error).split())}") from None
    started = time.perf_counter()
    corpus: Corpus = dataset(**arguments_of_dataset).corpus
    print(describe(corpus))
    if options.action == "verify" and isinstance(corpus.images, ImageFiles):
        problems = _unreadable(corpus.images)
        print("".join(f"{problem}\n" for problem in problems[:SHOWN]), end="")
        total = len(corpus.images)
        if problems:
            raise InputError(f"{corpus.name}: {len(problems)} of {total:,} images cannot be read; replace them")
        print(f"all {total:,} images can be read")
    print(f"{options.action}: done in {time.perf_counter() - started:.1f} s")
    return 0


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


def _unreadable(images: "ImageFiles") -> list[str]:
    """One line for each image that cannot be decoded."""

    def problem(row: int) -> str | None:
        try:
            images[row]
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        return [line for line in pool.map(problem, range(len(images))) if line]
