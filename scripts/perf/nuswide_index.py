"""How long NUS-WIDE's full index takes, and how much memory: parsed from disk, then from the cache.

Writes a synthetic index of true size (269,648 rows, 81 concepts, 1,000 tags; AllTags1k.txt alone is 539 MB) with the
genuine file's quirks: backslashes, trailing tabs, photo ids on two rows, 16 rows whose two tag files differ. With
``--images`` also 269,648 one-byte image files in 704 folders.

    python scripts/perf/nuswide_index.py [--images] [--text bow]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROWS, CONCEPTS, TAGS, FOLDERS = 269_648, 81, 1_000, 704
MEASURE = """
import resource, sys, time
from itmbench.data.datasets import NUSWide
start = time.perf_counter()
corpus = NUSWide(sys.argv[1], text=sys.argv[2]).corpus
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
print(f"{len(corpus.image_ids):,} of {corpus.counts[0].found:,} rows in {seconds:.2f} s, peak memory {peak:,.0f} MB")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", action="store_true", help="also write one-byte image files")
    parser.add_argument("--text", choices=("tags", "bow"), default="tags")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "nuswide"), Path(folder, "cache")
        write_index(root, options.images)
        time.sleep(3)  # the cache does not remember hashes of files that were written a moment ago
        for what in ("parsed", "from the cache"):
            print(f"{what}: ", end="", flush=True)
            command = [sys.executable, "-c", MEASURE, str(root), options.text]
            subprocess.run(command, env=os.environ | {"ITMBENCH_CACHE": str(cache)}, check=True)


def write_index(root: Path, images: bool) -> None:
    """The files of the genuine layout, with random content of realistic density."""
    rng = np.random.default_rng(0)
    photo_ids = rng.permutation(np.arange(10**9, 10**9 + ROWS))
    photo_ids[1:12:2] = photo_ids[0:11:2]  # six photographs on two rows each
    paths = [f"folder{row % FOLDERS}/{row:04d}_{photo_id}.jpg" for row, photo_id in enumerate(photo_ids)]
    write(root / "ImageList" / "Imagelist.txt", "\r\n".join(path.replace("/", "\\") for path in paths) + "\r\n")
    names = [f"concept{column}" for column in range(CONCEPTS)]
    write(root / "ConceptsList" / "Concepts81.txt", "\n".join(names) + "\n")
    for column, name in enumerate(names):
        write_bits(
            root / "Groundtruth" / "AllLabels" / f"Labels_{name}.txt", rng.random((ROWS, 1)) < 0.3 / (column + 1)
        )
    vocabulary = [f"tag{column}" for column in range(TAGS)]
    write(root / "NUS_WID_Tags" / "TagList1k.txt", "\n".join(vocabulary) + "\n")
    lines, bag = [], np.zeros((ROWS, TAGS), bool)
    for row, (photo_id, count) in enumerate(zip(photo_ids, rng.poisson(5.8, ROWS), strict=True)):
        columns = rng.integers(0, TAGS, count)
        bag[row, columns] = True
        rare = [f"rareword{number}" for number in rng.integers(0, 420_000, 12)]
        lines.append(" ".join([str(photo_id), *(vocabulary[column] for column in columns), *rare]))
    bag[:16, 0] ^= True
    write(root / "NUS_WID_Tags" / "All_Tags.txt", "\n".join(lines) + "\n")
    write_bits(root / "NUS_WID_Tags" / "AllTags1k.txt", bag, b"\t")
    for path in paths if images else ():
        write(root / "Flickr" / path, "x")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def write_bits(path: Path, bits: NDArray[np.bool_], trailing: bytes = b"") -> None:
    """One row a line, values separated by tabs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = np.frombuffer(b"0\t" * bits.shape[1], np.uint8)[: 2 * bits.shape[1] - 1 + len(trailing)]
    line = np.append(line, np.uint8(ord("\n")))
    with path.open("wb") as file:
        for start in range(0, len(bits), 10_000):
            block = np.tile(line, (len(bits[start : start + 10_000]), 1))
            block[:, : 2 * bits.shape[1] : 2] += bits[start : start + 10_000].astype(np.uint8)
            file.write(block.tobytes())


if __name__ == "__main__":
    main()
