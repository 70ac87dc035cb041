import random
from collections import Counter

import pytest

from itmbench.data.mini.scene import Scene, Thing, place_swaps, sample_scene, sample_twins, swap

FACTS = ("shape", "colour", "size", "row", "column")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = random.Random(5)
    return [sample_scene(rng, rng.choice((2, 3))) for _ in range(400)]


def bag(scene: Scene, fact: str) -> Counter[object]:
    return Counter(getattr(thing, fact) for thing in scene.things)


def changed(scene: Scene, twin: Scene) -> list[tuple[str, ...]]:
    """Which facts differ, thing by thing."""
    pairs = zip(scene.things, twin.things, strict=True)
    return [tuple(fact for fact in FACTS if getattr(a, fact) != getattr(b, fact)) for a, b in pairs]


def test_things_of_scenes_and_twins_differ_in_shape_colour_and_place(scenes: list[Scene]) -> None:
    rng = random.Random(8)
    twins = [twin for scene in scenes for twin in sample_twins(scene, rng)]
    for scene in [*scenes, *twins]:
        for facts in (("shape",), ("colour",), ("row", "column")):
            seen = {tuple(getattr(thing, fact) for fact in facts) for thing in scene.things}
            assert len(seen) == len(scene.things)


def test_twins_differ_from_their_scene_in_one_fact(scenes: list[Scene]) -> None:
    rng = random.Random(6)
    for scene in scenes:
        colours, places, shape = sample_twins(scene, rng)
        assert (colours.texture, colours.light) == (scene.texture, scene.light)
        assert sorted(changed(scene, colours)) == sorted([("colour",)] * 2 + [()] * (len(scene.things) - 2))
        moved = [facts for facts in changed(scene, places) if facts]
        assert moved in ([("row",)] * 2, [("column",)] * 2)
        assert sorted(changed(scene, shape)) == sorted([("shape",)] + [()] * (len(scene.things) - 1))
        assert all(bag(scene, fact) == bag(twin, fact) for fact in FACTS for twin in (colours, places))
        assert bag(scene, "shape") != bag(shape, "shape")


def test_a_diagonal_pair_swaps_one_axis_only_when_nothing_is_in_the_way() -> None:
    one, other = Thing("circle", "red", "small", 0, 0), Thing("star", "blue", "small", 1, 1)
    third = Thing("cross", "green", "small", 0, 1)
    assert place_swaps(Scene((one, other), "plain", "day")) == [(0, 1, "column"), (0, 1, "row")]
    assert place_swaps(Scene((one, other, third), "plain", "day")) == [(0, 2, "column"), (1, 2, "row")]
    swapped = swap(Scene((one, other), "plain", "day"), 0, 1, "column")
    assert [(thing.shape, thing.row, thing.column) for thing in swapped.things] == [("circle", 0, 1), ("star", 1, 0)]
