"""Small copies of a dataset's pictures, each once in a page."""

import base64
import io
from pathlib import Path, PurePath

from itmbench.data.pictures import read_picture
from itmbench.errors import InputError

SIDE, QUALITY = 176, 55
"""Longest side in pixels, and quality of WebP: about 4 kB a photograph."""
BUDGET = 20_000_000
"""Most characters of all copies of a page."""


class Thumbnails:
    """WebP copies as data URIs.

    Args:
        budget: most characters; pictures that come later are left out.

    Attributes:
        uris: the copies, in the order of the requests.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.uris: list[str] = []
        self._room = budget
        self._numbers: dict[tuple[Path, int], int | None] = {}

    def number(self, root: str, name: str, size: int, side: int = SIDE) -> int | None:
        """Place in ``uris`` of a picture whose longest side has at most ``side`` pixels.

        None if the file is missing, has another size in bytes, cannot be read or lies outside the root, or if the
        budget is used up.
        """
        path = Path(root, name)
        if (path, side) not in self._numbers:
            self._numbers[path, side] = self._add(path, side) if _is_there(path, name, size) else None
        return self._numbers[path, side]

    def _add(self, path: Path, side: int) -> int | None:
        try:
            picture = read_picture(path)
        except InputError:
            return None
        picture.thumbnail((side, side))
        content = io.BytesIO()
        picture.save(content, "WEBP", quality=QUALITY)
        uri = f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
        if len(uri) > self._room:
            return None
        self._room -= len(uri)
        self.uris.append(uri)
        return len(self.uris) - 1


def _is_there(path: Path, name: str, size: int) -> bool:
    try:
        return ".." not in PurePath(name).parts and not PurePath(name).is_absolute() and path.stat().st_size == size
    except (OSError, ValueError):  # a name with a null byte
        return False
