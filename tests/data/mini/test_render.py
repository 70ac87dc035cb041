import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from itmbench.data.mini import paint
from itmbench.data.mini.flickr30k import render_flickr30k
from itmbench.data.mini.mirflickr import render_mirflickr
from itmbench.data.mini.nuswide import render_nuswide
from itmbench.data.mini.render import RENDERERS, render
from itmbench.errors import InputError

Renderer = Callable[[Path, int], None]
SMALL: list[Renderer] = [
    lambda root, seed: render_flickr30k(root, seed, train=150, val=2, test=3),
    lambda root, seed: render_mirflickr(root, seed, images=150),
    lambda root, seed: render_nuswide(root, seed, images=150, repeated=2),
]


def contents(root: Path) -> dict[str, str]:
    """A hash of every file below the folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("small", SMALL)
def test_bytes_depend_on_the_seed_and_not_on_threads(
    small: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads, seed in ((1, 0), (5, 0), (2, 1)):
        monkeypatch.setattr(paint, "processors", lambda threads=threads: threads)
        small(tmp_path / f"{threads}", seed)
    one, five, other = (contents(tmp_path / threads) for threads in "152")
    assert one == five
    pictures = [name for name in one if name.endswith(".jpg") and name in other]
    assert not any(one[name] == other[name] for name in pictures)
    assert one != other


def test_each_seed_is_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def tiny(root: Path, seed: int) -> None:
        seeds.append(seed)
        render_flickr30k(root, seed, train=2, val=1, test=1)

    monkeypatch.setitem(RENDERERS, "flickr30k-mini", tiny)
    first, again, other = (render("flickr30k-mini", tmp_path / "cache", seed) for seed in (0, 0, 1))
    assert first == again != other
    assert seeds == [0, 1]
    assert (first / "truth.json").is_file()
    assert sorted((tmp_path / "cache").iterdir()) == sorted([first, other])


def test_a_failed_rendering_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: Path, seed: int) -> None:
        render_flickr30k(root, seed, train=2, val=0, test=0)
        raise KeyboardInterrupt

    monkeypatch.setitem(RENDERERS, "flickr30k-mini", broken)
    with pytest.raises(KeyboardInterrupt):
        render("flickr30k-mini", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_two_renderings_at_once_the_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(root: Path, seed: int) -> None:
        monkeypatch.setitem(RENDERERS, "flickr30k-mini", winner)
        render("flickr30k-mini", tmp_path, seed)
        render_flickr30k(root, seed, train=2, val=0, test=0)

    def winner(root: Path, seed: int) -> None:
        render_flickr30k(root, seed, train=3, val=0, test=0)

    monkeypatch.setitem(RENDERERS, "flickr30k-mini", overtaken)
    folder = render("flickr30k-mini", tmp_path)
    assert len(list((folder / "flickr30k-images").iterdir())) == 3
    assert list(tmp_path.iterdir()) == [folder]


def test_an_unknown_name_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="coco-mini: no such mini corpus; choose one of flickr30k-mini, "):
        render("coco-mini", tmp_path)


def test_rendering_needs_neither_torch_nor_lightning() -> None:
    program = "import sys, itmbench.data.mini.render; sys.exit(any(m in sys.modules for m in ('torch', 'lightning')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
