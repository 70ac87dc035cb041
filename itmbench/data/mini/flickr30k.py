"""flickr30k-mini: captioned scenes with near twins and complete truth, in the layout of Karpathy's Flickr30K."""

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from itmbench.data.mini.claims import Claim, sample_claims, truth
from itmbench.data.mini.language import caption
from itmbench.data.mini.paint import save_all
from itmbench.data.mini.scene import Scene, sample_scene, sample_twins


@dataclass(frozen=True)
class Photo:
    """One image of the corpus: what it shows, the captions, and their logical forms.

    ``seed`` decides everything that no caption mentions; near twins share it.
    """

    split: str
    scene: Scene
    seed: int
    claims: tuple[Claim, ...]
    captions: tuple[str, ...]


def render_flickr30k(
    root: Path, seed: int = 0, *, train: int = 3000, val: int = 50, test: int = 150, pixels: int = 64
) -> None:
    """Write the corpus below ``root``.

    Args:
        root: the folder; created if missing.
        seed: the same seed gives the same bytes.
        train: number of training images.
        val: number of validation scenes; each with its three near twins makes four images.
        test: number of test scenes, likewise.
        pixels: side of the images.
    """
    photos, twins = plan_flickr30k(seed, train=train, val=val, test=test)
    images = root / "flickr30k-images"
    images.mkdir(parents=True)
    paths = [images / _filename(imgid) for imgid in range(len(photos))]
    save_all([photo.scene for photo in photos], [photo.seed for photo in photos], paths, pixels)
    _write_json(root / "dataset_flickr30k.json", {"images": _entries(photos), "dataset": "flickr30k"})
    _write_json(root / "truth.json", {**_truth(photos, "val"), **_truth(photos, "test")})
    _write_json(root / "hard_negatives.json", [pair for one, other in twins for pair in ((one, other), (other, one))])


def plan_flickr30k(seed: int = 0, *, train: int, val: int, test: int) -> tuple[list[Photo], list[tuple[int, int]]]:
    """Plan the corpus without its pixels: images in the order of their ids, and (scene, twin) pairs of ids.

    For each twin, its scene has a caption that is false of the twin, and the twin has a caption that is false of the
    scene, so that captions tell every pair apart.
    """
    rng = random.Random(f"flickr30k-mini {seed}")
    photos: list[Photo] = []
    twins: list[tuple[int, int]] = []
    for _ in range(train):
        photos.append(_photo("train", _scene(rng), rng.getrandbits(32), (), rng))
    for split, scenes in (("val", val), ("test", test)):
        for _ in range(scenes):
            scene, appearance, first = _scene(rng), rng.getrandbits(32), len(photos)
            group = sample_twins(scene, rng)
            photos.append(_photo(split, scene, appearance, group, rng))
            photos.extend(_photo(split, twin, appearance, (scene,), rng) for twin in group)
            twins.extend((first, first + k) for k in (1, 2, 3))
    return photos, twins


def _scene(rng: random.Random) -> Scene:
    return sample_scene(rng, rng.choice((2, 2, 3)))


def _photo(split: str, scene: Scene, seed: int, rivals: Sequence[Scene], rng: random.Random) -> Photo:
    """Return a photo; for each of the rivals, at least one of its captions is false."""
    while True:
        claims = sample_claims(scene, rng)
        if not rivals or not truth(claims, rivals).all(axis=0).any():
            return Photo(split, scene, seed, tuple(claims), tuple(caption(claim, rng) for claim in claims))


def _filename(imgid: int) -> str:
    return f"{imgid + 1:08d}.jpg"


def _entries(photos: Sequence[Photo]) -> list[dict[str, object]]:
    """The ``images`` list of Karpathy's JSON."""
    entries: list[dict[str, object]] = []
    sentid = itertools.count()
    for imgid, photo in enumerate(photos):
        sentences = [
            {
                "tokens": text.replace(",", "").split(),
                "raw": f"{text[0].upper()}{text[1:]} .",
                "imgid": imgid,
                "sentid": next(sentid),
            }
            for text in photo.captions
        ]
        sentids = [sentence["sentid"] for sentence in sentences]
        entry = {"sentids": sentids, "imgid": imgid, "sentences": sentences, "split": photo.split}
        entries.append(entry | {"filename": _filename(imgid)})
    return entries


def _truth(photos: Sequence[Photo], split: str) -> dict[str, list[int]]:
    """Ids of all images of a split that each of its captions is true of, by caption id."""
    ids = np.array([imgid for imgid, photo in enumerate(photos) if photo.split == split], dtype=np.int64)
    first = np.cumsum([0] + [len(photo.captions) for photo in photos])
    sentids = [sentid for imgid in ids for sentid in range(first[imgid], first[imgid + 1])]
    claims = [claim for imgid in ids for claim in photos[imgid].claims]
    verdicts = truth(claims, [photos[imgid].scene for imgid in ids])
    return {str(sentid): ids[verdict].tolist() for sentid, verdict in zip(sentids, verdicts, strict=True)}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
