"""Mini corpora on demand: rendered once into a cache folder, found there ever after."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from itmbench.data.mini.flickr30k import render_flickr30k
from itmbench.data.mini.mirflickr import render_mirflickr
from itmbench.data.mini.nuswide import render_nuswide
from itmbench.errors import InputError

RENDERERS: dict[str, Callable[[Path, int], None]] = {
    "flickr30k-mini": render_flickr30k,
    "mirflickr-mini": render_mirflickr,
    "nuswide-mini": render_nuswide,
}


def render(name: str, cache_root: Path, seed: int = 0) -> Path:
    """The folder of a mini corpus, rendered at once if it is not there yet.

    The folder's name carries the seed and a hash of the renderer, so that a changed renderer never meets old pictures.
    It appears complete or not at all; of two processes that render at the same time, one finds its work done.

    Args:
        name: "flickr30k-mini", "mirflickr-mini" or "nuswide-mini".
        cache_root: the folder of all rendered corpora; made if it is not there.
        seed: same seed, same bytes.

    Raises:
        InputError: there is no mini corpus of that name.
    """
    if name not in RENDERERS:
        raise InputError(f"{name}: no such mini corpus; choose one of {', '.join(RENDERERS)}")
    folder = cache_root / f"{name}-seed{seed}-{_renderer_hash()}"
    if not folder.is_dir():
        cache_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".rendering-", dir=cache_root) as unfinished:
            corpus = Path(unfinished) / name
            RENDERERS[name](corpus, seed)
            _move(corpus, folder)
    return folder


def _move(corpus: Path, folder: Path) -> None:
    """Put the finished corpus in its place, unless another process was quicker."""
    try:
        os.replace(corpus, folder)
    except OSError:
        if not folder.is_dir():
            raise


def _renderer_hash() -> str:
    """8 hex digits over this package's code and the libraries whose version can change a picture's bytes."""
    hasher = hashlib.blake2b(digest_size=4)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        hasher.update(path.read_bytes())
    hasher.update(f"numpy {version('numpy')} pillow {version('pillow')}".encode())
    return hasher.hexdigest()
