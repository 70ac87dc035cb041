"""Mini corpora on demand, rendered once into a cache folder."""

import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from itmbench.data.mini.flickr30k import render_flickr30k
from itmbench.data.mini.mirflickr import render_mirflickr
from itmbench.data.mini.nuswide import render_nuswide
from itmbench.errors import InputError
from itmbench.files import digest

RENDERERS: dict[str, Callable[[Path, int], None]] = {
    "flickr30k-mini": render_flickr30k,
    "mirflickr-mini": render_mirflickr,
    "nuswide-mini": render_nuswide,
}


def render(name: str, cache_root: Path, seed: int = 0) -> Path:
    """Return the folder of a mini corpus; render it first if it does not exist.

    The folder's name contains the seed and a hash of the renderer, so a changed renderer never reuses old pictures. The
    folder appears complete or not at all. If two processes render the same corpus, the first to finish wins.

    Args:
        name: "flickr30k-mini", "mirflickr-mini" or "nuswide-mini".
        cache_root: the folder of all rendered corpora; created if missing.
        seed: the same seed gives the same bytes.

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
            try:
                os.replace(corpus, folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return folder


def _renderer_hash() -> str:
    """Hash of this package's code and of the versions of the libraries that can change a picture's bytes."""
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return digest(*sources, version("numpy"), version("pillow"), size=4)
