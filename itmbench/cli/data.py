"""``itmbench data prepare|verify NAME --root DIR``: a dataset checked, or made ready, before any training."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from jsonargparse import ArgumentError, ArgumentParser

from itmbench.data.corpus import Corpus, ImageFiles
from itmbench.errors import InputError
from itmbench.runner import registry


def data(action: str, name: str, arguments: Sequence[str]) -> int:
    """Read a dataset, print its counts beside the published ones; ``verify`` decodes every image as well.

    Args:
        action: "prepare" (render or parse it, and fill the cache) or "verify".
        name: a dataset of ``itmbench list``.
        arguments: options of that dataset, such as ``--root DIR``.

    Returns:
        0 if all is well.

    Raises:
        InputError: there is no such dataset, an option is wrong, or the dataset is.
    """
    dataset = registry.find("datasets", name).load()
    parser = ArgumentParser(prog=f"itmbench data {action} {name}", exit_on_error=False)
    parser.add_class_arguments(dataset, as_positional=False)
    try:
        options = parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise InputError(f"itmbench data {action} {name}: {' '.join(str(error).split())}") from None
    started = time.perf_counter()
    corpus: Corpus = dataset(**options.as_dict()).corpus
    print(describe(corpus))
    if action == "verify" and isinstance(corpus.images, ImageFiles):
        bad = _unreadable(corpus.images)
        for line in bad[:20]:
            print(line)
        if bad:
            raise InputError(f"{corpus.name}: {len(bad)} of {len(corpus.images):,} images cannot be read; replace them")
        print(f"all {len(corpus.images):,} images can be read")
    print(f"{action}: done in {time.perf_counter() - started:.1f} s")
    return 0


def describe(corpus: Corpus) -> str:
    """Lines with the name, the fingerprint and the counts found, beside the published ones where they are known."""
    lines = [f"{corpus.name}  fingerprint {corpus.fingerprint}"]
    for count in corpus.counts:
        published = "" if count.published is None else f"   published {count.published:>9,}"
        differs = "" if count.published in (None, count.found) else "   DIFFERS"
        lines.append(f"  {count.what:<28} {count.found:>9,}{published}{differs}")
    if corpus.images is None:
        lines.append("  no images here: texts and labels only")
    return "\n".join(lines)


def _unreadable(images: ImageFiles) -> list[str]:
    """What is wrong with the images that cannot be decoded, a line each."""

    def problem(row: int) -> str | None:
        try:
            images[row]
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        return [line for line in pool.map(problem, range(len(images))) if line]
