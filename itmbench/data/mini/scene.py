"""Facts of rendered scenes, random scenes, and their near twins."""

import random
from dataclasses import dataclass, replace
from typing import Literal

SHAPES = ("circle", "ring", "square", "triangle", "star", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "checked", "dotted", "speckled", "wavy")
LIGHTS = ("day", "night")

# Two rows and two columns. Columns are far apart, so that "left of" is never ambiguous.
CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))

MOST_THINGS = 3


@dataclass(frozen=True)
class Thing:
    """One coloured shape. ``row`` 0 is the top and ``column`` 0 the left."""

    shape: str
    colour: str
    size: str
    row: int
    column: int


@dataclass(frozen=True)
class Scene:
    """One to three things of different shapes and colours on a textured background, by day or by night."""

    things: tuple[Thing, ...]
    texture: str
    light: str


@dataclass(frozen=True)
class Topic:
    """What photographs of one topic usually show, so that labels and tags co-occur as in real albums.

    Args:
        name: the topic.
        favourites: (colour, shape) of the usual things.
        texture: the usual background.
        night: share of photographs taken at night.
        tags: words that users add because of the topic, whatever the scene.
    """

    name: str
    favourites: tuple[tuple[str, ...], ...]
    texture: str
    night: float
    tags: tuple[str, ...]


def sample_scene(rng: random.Random, count: int, topic: Topic | None = None, loyalty: float = 0.0) -> Scene:
    """Draw a scene of ``count`` things whose facts each follow the topic with probability ``loyalty``."""
    things: list[Thing] = []
    for row, column in rng.sample(CELLS, count):
        while True:
            if topic is not None and rng.random() < loyalty:
                colour, shape = rng.choice(topic.favourites)
            else:
                colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
            if all(colour != other.colour and shape != other.shape for other in things):
                break
        things.append(Thing(shape, colour, rng.choice(SIZES), row, column))
    texture = topic.texture if topic is not None and rng.random() < loyalty else rng.choice(TEXTURES)
    night = 0.3 if topic is None else topic.night
    return Scene(tuple(things), texture, "night" if rng.random() < night else "day")


def sample_twins(scene: Scene, rng: random.Random) -> tuple[Scene, Scene, Scene]:
    """Draw three scenes that differ in one fact: two colours swapped, two places swapped, one shape changed."""
    first, second = rng.sample(range(len(scene.things)), 2)
    colours = swap(scene, first, second, "colour")
    places = swap(scene, *rng.choice(place_swaps(scene)))
    things = list(scene.things)
    things[first] = replace(
        things[first], shape=rng.choice([s for s in SHAPES if all(s != thing.shape for thing in things)])
    )
    return colours, places, replace(scene, things=tuple(things))


def swap(scene: Scene, first: int, second: int, fact: Literal["colour", "row", "column"]) -> Scene:
    """Swap the colours, the rows (top and bottom) or the columns (left and right) of two things."""
    things = list(scene.things)
    for at, other in ((first, second), (second, first)):
        things[at] = replace(things[at], **{fact: getattr(scene.things[other], fact)})
    return replace(scene, things=tuple(things))


def place_swaps(scene: Scene) -> list[tuple[int, int, Literal["row", "column"]]]:
    """Pairs of things, each with an axis along which swapping them puts no two things in one place."""
    swaps: list[tuple[int, int, Literal["row", "column"]]] = []
    alone = len(scene.things) == 2
    for second in range(len(scene.things)):
        for first in range(second):
            one, other = scene.things[first], scene.things[second]
            if one.column != other.column and (one.row == other.row or alone):
                swaps.append((first, second, "column"))
            if one.row != other.row and (one.column == other.column or alone):
                swaps.append((first, second, "row"))
    return swaps
