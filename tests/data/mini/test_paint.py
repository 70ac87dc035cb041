import random

import numpy as np
import pytest
from numpy.typing import NDArray

from itmbench.data.mini.paint import MIDDLES, RGB, paint
from itmbench.data.mini.scene import COLOURS, SHAPES, SIZES, TEXTURES, Scene, Thing, sample_scene, sample_twins


def one(shape: str = "square", colour: str = "red", size: str = "large", row: int = 0, column: int = 0) -> Scene:
    return Scene((Thing(shape, colour, size, row, column),), "plain", "day")


def filled(scene: Scene, seed: int = 3, pixels: int = 64) -> NDArray[np.bool_]:
    """Where the picture has about the colour of the scene's only thing `[pixels, pixels]`."""
    picture = paint([scene], [seed], pixels)[0].astype(int)
    return np.abs(picture - RGB[scene.things[0].colour]).max(-1) < 50


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("colour", [colour for colour in COLOURS if colour != "white"])
def test_a_thing_has_its_colour_and_its_place(row: int, column: int, colour: str) -> None:
    y, x = np.nonzero(filled(one(colour=colour, row=row, column=column)))
    assert abs(np.median(y) / 64 - MIDDLES[row]) < 0.06
    assert abs(np.median(x) / 64 - MIDDLES[column]) < 0.06


@pytest.mark.parametrize("shape", SHAPES)
def test_things_span_a_patch_and_large_ones_more(shape: str) -> None:
    widths = {size: int(np.any(filled(one(shape, size=size)), axis=0).sum()) for size in SIZES}
    assert 12 <= widths["small"] < widths["large"] <= 32


def test_shapes_cover_what_their_outlines_enclose() -> None:
    """Areas in squared radii, from geometry; turned shapes keep them."""
    reach = 0.205 * 256
    expected = {"circle": np.pi, "square": (2 * 0.86) ** 2, "ring": np.pi * (1 - 0.48**2), "cross": 4 * 0.66 - 0.66**2}
    for shape, area in expected.items():
        found = np.mean([filled(one(shape), seed, pixels=256).sum() for seed in range(24)]) / reach**2
        assert found == pytest.approx(area, rel=0.06), shape


def test_twins_differ_in_pixels_only_where_their_facts_differ() -> None:
    rng = random.Random(1)
    for seed in range(20):
        scene = sample_scene(rng, 3)
        for twin in sample_twins(scene, rng):
            mine, other = paint([scene, twin], [seed, seed], 64)
            differs = np.any(mine != other, axis=-1)
            cells = {
                (t.row, t.column) for a, b in zip(scene.things, twin.things, strict=True) if a != b for t in (a, b)
            }
            for row in (0, 1):
                for column in (0, 1):
                    # The inner part of each quarter: a large thing may reach a pixel or two into its neighbour's.
                    inner = differs[8 + 32 * row : 24 + 32 * row, 8 + 32 * column : 24 + 32 * column]
                    assert inner.any() == ((row, column) in cells)


def test_a_scene_does_not_depend_on_its_batch_but_on_its_seed() -> None:
    rng = random.Random(2)
    scenes = [sample_scene(rng, rng.choice((1, 2, 3))) for _ in range(40)]
    together = paint(scenes, range(40), 64)
    for at in (0, 7, 39):
        assert np.array_equal(paint([scenes[at]], [at], 64)[0], together[at])
    assert not np.array_equal(*paint([one(), one()], [0, 1], 64))


def test_textures_and_light_show() -> None:
    pictures = {t: paint([Scene((), t, "day")] * 20, range(20), 64).astype(float) for t in TEXTURES}
    rough = {texture: np.abs(np.diff(p, axis=2)).mean() for texture, p in pictures.items()}
    assert all(rough[texture] > 1.2 * rough["plain"] for texture in TEXTURES if texture != "plain")
    night = paint([Scene((), "plain", "night")] * 20, range(20), 64)
    assert night.mean() < 0.5 * pictures["plain"].mean()
