"""Logical forms of captions, and the scenes of which they are true."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from itmbench.data.mini.scene import COLOURS, LIGHTS, MOST_THINGS, SHAPES, SIZES, TEXTURES, Scene, Thing


@dataclass(frozen=True)
class Part:
    """Facts claimed of one thing; None if not mentioned. ``row`` 0 is the top, ``column`` 0 the left."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    row: int | None = None
    column: int | None = None


@dataclass(frozen=True)
class Claim:
    """A claim is true of a scene if distinct things fit the parts, and relation, texture and light hold.

    Args:
        parts: one to three.
        relation: "left" (the first thing is left of the second), "above", or None.
        texture: the background, or None.
        light: "day", "night" or None.
    """

    parts: tuple[Part, ...]
    relation: str | None = None
    texture: str | None = None
    light: str | None = None


def sample_claims(scene: Scene, rng: random.Random) -> list[Claim]:
    """Draw five claims that are true of the scene: two relations, a binding, a place or setting, and any other."""
    kinds = [
        _relation,
        _relation,
        _binding,
        rng.choice((_place, _setting)),
        rng.choice((_relation, _binding, _setting)),
    ]
    claims = [kind(scene, rng) for kind in kinds]
    rng.shuffle(claims)
    return claims


def truth(claims: Sequence[Claim], scenes: Sequence[Scene]) -> NDArray[np.bool_]:
    """Whether each claim is true of each scene, from the scene's facts alone `[claims, scenes]`."""
    table, texture, light = _table(scenes)
    column, row = table["column"], table["row"]
    related = {"left": column[:, :, None] < column[:, None, :], "above": row[:, :, None] < row[:, None, :]}
    verdicts = np.empty((len(claims), len(scenes)), dtype=bool)
    for verdict, claim in zip(verdicts, claims, strict=True):
        fits = [_fits(part, table) for part in claim.parts]
        verdict[:] = False
        for slots in permutations(range(MOST_THINGS), len(fits)):
            held = np.logical_and.reduce([fit[:, slot] for fit, slot in zip(fits, slots, strict=True)])
            if claim.relation is not None:
                held &= related[claim.relation][:, slots[0], slots[1]]
            verdict |= held
        if claim.texture is not None:
            verdict &= texture == TEXTURES.index(claim.texture)
        if claim.light is not None:
            verdict &= light == LIGHTS.index(claim.light)
    return verdicts


_CODES: dict[str, tuple[str | int, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "size": SIZES,
    "row": (0, 1),
    "column": (0, 1),
}


def _table(scenes: Sequence[Scene]) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64], NDArray[np.int64]]:
    """Facts as numbers: of the things `[scenes, 3]` by name, -1 for no thing; texture and light `[scenes]`."""
    table = {name: np.full((len(scenes), MOST_THINGS), -1) for name in _CODES}
    for name, codes in _CODES.items():
        for index, scene in enumerate(scenes):
            table[name][index, : len(scene.things)] = [codes.index(getattr(thing, name)) for thing in scene.things]
    texture = np.array([TEXTURES.index(scene.texture) for scene in scenes])
    return table, texture, np.array([LIGHTS.index(scene.light) for scene in scenes])


def _fits(part: Part, table: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Whether each thing of each scene fits the part `[scenes, 3]`; a missing thing never does."""
    held = table["shape"] >= 0
    for name, codes in _CODES.items():
        value = getattr(part, name)
        if value is not None:
            held = held & (table[name] == codes.index(value))
    return held


def _relation(scene: Scene, rng: random.Random) -> Claim:
    """Two things and their relation."""
    one, other = rng.sample(scene.things, 2)
    choices = []
    if one.column != other.column:
        choices.append(("left", (one, other) if one.column < other.column else (other, one)))
    if one.row != other.row:
        choices.append(("above", (one, other) if one.row < other.row else (other, one)))
    relation, pair = rng.choice(choices)
    parts = tuple(_describe(thing, rng) for thing in pair)
    return Claim(parts, relation, *_surroundings(scene, rng))


def _binding(scene: Scene, rng: random.Random) -> Claim:
    """Two or more things in a list, which binds colours to shapes."""
    things = rng.sample(scene.things, rng.randint(2, len(scene.things)))
    return Claim(tuple(_describe(thing, rng) for thing in things), None, *_surroundings(scene, rng))


def _place(scene: Scene, rng: random.Random) -> Claim:
    """One or two things, and the place of the first in the picture."""
    first, second = rng.sample(scene.things, 2)
    keep = rng.choice((("row",), ("column",), ("row", "column")))
    placed = {name: getattr(first, name) for name in keep}
    parts = [replace(_describe(first, rng), **placed)]
    if rng.random() < 0.5:
        parts.append(_describe(second, rng))
    return Claim(tuple(parts), None, *_surroundings(scene, rng))


def _setting(scene: Scene, rng: random.Random) -> Claim:
    """One or two things and the background."""
    things = rng.sample(scene.things, rng.randint(1, 2))
    light = scene.light if rng.random() < 0.5 else None
    return Claim(tuple(_describe(thing, rng) for thing in things), None, scene.texture, light)


def _describe(thing: Thing, rng: random.Random) -> Part:
    """Mention colour and shape, or one time in four only one of them; half the time also the size."""
    shape, colour = rng.choice(((True, True),) * 6 + ((True, False), (False, True)))
    size = rng.random() < 0.5
    return Part(thing.shape if shape else None, thing.colour if colour else None, thing.size if size else None)


def _surroundings(scene: Scene, rng: random.Random) -> tuple[str | None, str | None]:
    """Mention texture and light, each with probability 1/3."""
    texture = scene.texture if rng.random() < 1 / 3 else None
    return texture, scene.light if rng.random() < 1 / 3 else None
