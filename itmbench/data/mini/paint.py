"""Pixels of scenes, from signed distances on a pixel grid, which give smooth edges without supersampling.

Scenes are painted in batches, so that numpy spends its time in long loops without Python's global lock and threads run
in parallel. Geometry is computed in float64 and blended in float32: the last bits of sines differ between processors
and must not reach a pixel, because the same seed has to give the same bytes on every machine.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from itmbench.data.mini.scene import MOST_THINGS, SHAPES, TEXTURES, Scene, Thing
from itmbench.processors import processors

Floats = NDArray[np.float64]
Planes = NDArray[np.float32]

RGB = {
    "red": (214, 38, 38),
    "orange": (242, 140, 28),
    "yellow": (246, 224, 56),
    "green": (44, 156, 66),
    "blue": (44, 88, 214),
    "purple": (122, 48, 160),
    "pink": (250, 156, 196),
    "white": (246, 246, 246),
}
EDGE = 22  # grey level of the thin outline of every thing
# As shares of the picture's side: radius of a thing, and centres of the rows and columns.
RADIUS = {"small": 0.13, "large": 0.205}
MIDDLES = (0.265, 0.735)
# Lowest and highest mean grey level of a background, and the contrast of its texture.
GROUND = {"day": (132, 160, 26), "night": (40, 56, 17)}
JPEG_QUALITY = 92
BATCH = 64


def save_all(scenes: Sequence[Scene], seeds: Sequence[int], paths: Sequence[Path], pixels: int) -> None:
    """Paint every scene with its seed and write it as a JPEG into existing folders.

    Without chroma subsampling, because things are only a few pixels wide.
    """

    def save(start: int) -> None:
        batch = slice(start, start + BATCH)
        for picture, path in zip(paint(scenes[batch], seeds[batch], pixels), paths[batch], strict=True):
            Image.fromarray(picture).save(path, "JPEG", quality=JPEG_QUALITY, subsampling=0)

    with ThreadPoolExecutor(processors()) as pool:
        list(pool.map(save, range(0, len(scenes), BATCH)))


def paint(scenes: Sequence[Scene], seeds: Sequence[int], pixels: int) -> NDArray[np.uint8]:
    """Paint scenes as RGB `[B, pixels, pixels, 3]`.

    A scene's seed decides everything that no caption mentions: exact places, rotations, shades and noise. Scenes with
    the same number of things and the same seed differ only where their facts differ.
    """
    generators = [np.random.default_rng(seed) for seed in seeds]
    draws = np.stack([generator.random((1 + MOST_THINGS, 8)) for generator in generators])
    noise = np.stack([generator.standard_normal((pixels, pixels), dtype=np.float32) for generator in generators])
    grains = np.stack([generator.random((pixels // 2 + 1, pixels // 2 + 1)) for generator in generators])

    canvas = _background(scenes, draws[:, 0], grains, pixels)
    for slot in range(MOST_THINGS):
        for shape in SHAPES:
            rows = [i for i, s in enumerate(scenes) if slot < len(s.things) and s.things[slot].shape == shape]
            if rows:
                things = [scenes[i].things[slot] for i in rows]
                _add(canvas, np.array(rows), things, draws[rows, 1 + slot])
    canvas *= _between(0.92, 1.06, draws[:, 0, 7]).astype(np.float32)[:, None, None]
    canvas += 5 * noise
    return np.ascontiguousarray(np.clip(canvas, 0, 255).astype(np.uint8).transpose(1, 2, 3, 0))


def _between(low: float, high: float, draw: Floats) -> Floats:
    return low + (high - low) * draw


def _background(scenes: Sequence[Scene], draws: Floats, grains: Floats, pixels: int) -> Planes:
    """Paint muted backgrounds with the scenes' textures, lighter by day than by night `[3, B, pixels, pixels]`.

    Colour comes first while painting, because numpy is several times slower along a last axis of three.
    """
    low, high, contrast = np.array([GROUND[scene.light] for scene in scenes]).T
    tone = (low + (high - low) * draws[:, 0]) * _between(0.88, 1.12, draws[:, 1:4].T)
    pattern = np.empty((len(scenes), pixels, pixels), dtype=np.float32)
    for texture in TEXTURES:
        rows = np.array([i for i, scene in enumerate(scenes) if scene.texture == texture], dtype=np.int64)
        pattern[rows] = _pattern(texture, draws[rows, 3:7], grains[rows], pixels)
    canvas = np.empty((3, *pattern.shape), dtype=np.float32)
    np.multiply(contrast.astype(np.float32)[:, None, None], pattern, out=canvas)
    canvas += tone.astype(np.float32)[:, :, None, None]
    return canvas


def _pattern(texture: str, draws: Floats, grains: Floats, pixels: int) -> Floats:
    """Zero-centred patterns `[n, pixels, pixels]` with random angle, period and phases."""
    if texture == "speckled":
        return (2.8 * grains - 1.4).repeat(2, 1).repeat(2, 2)[:, :pixels, :pixels]
    angle, phase, other_phase = (2 * math.pi * draws[:, :3].T)[:, :, None, None]
    period = _between(0.13, 0.19, draws[:, 3])[:, None, None]
    y, x = np.mgrid[:pixels, :pixels] * (2 * math.pi / pixels)
    along = (np.cos(angle) * x + np.sin(angle) * y) / period + phase
    if texture == "plain":
        return 0.4 * np.sin(along * period)
    if texture == "striped":
        return np.clip(3 * np.sin(along), -1, 1)
    across = (np.cos(angle) * y - np.sin(angle) * x) / period + other_phase
    if texture == "checked":
        return np.clip(5 * np.sin(along / 1.5) * np.sin(across / 1.5), -1, 1)
    if texture == "dotted":
        return np.clip(4 * (np.cos(along) + np.cos(across) - 0.9), -0.6, 1)
    return np.clip(3 * np.sin(along + 2.2 * np.sin(across / 2)), -1, 1)  # wavy


def _add(canvas: Planes, rows: NDArray[np.int64], things: Sequence[Thing], draws: Floats) -> None:
    """Blend things of one shape, one per row, with thin dark outlines, into the pictures `[3, B, ...]` in place."""
    pixels = canvas.shape[-1]
    radius = np.array([RADIUS[thing.size] for thing in things]) * pixels
    radius *= _between(0.94, 1.06, draws[:, 0])
    turn = _between(-0.28, 0.28, draws[:, 1])[:, None, None]
    middle = np.array([(MIDDLES[thing.row], MIDDLES[thing.column]) for thing in things])
    middle = (middle + _between(-0.03, 0.03, draws[:, 2:4])) * pixels
    fill = np.array([RGB[thing.colour] for thing in things]).T * _between(0.92, 1.05, draws[:, 4])
    fill += _between(-8, 8, draws[:, 5:8].T)

    # Paint only a window around each thing.
    side = min(pixels, 2 * math.ceil(1.25 * float(radius.max()) + 2))
    corner = np.clip(np.floor(middle - side / 2).astype(np.int64), 0, pixels - side)
    y, x = corner[:, 0, None, None] + np.arange(side)[:, None], corner[:, 1, None, None] + np.arange(side)
    window = (rows[:, None, None] * pixels + y) * pixels + x
    radius, middle_y, middle_x = radius[:, None, None], middle[:, 0, None, None], middle[:, 1, None, None]
    down, right = (y + 0.5 - middle_y) / radius, (x + 0.5 - middle_x) / radius
    cos, sin = np.cos(turn), np.sin(turn)
    outside = radius * _distance(things[0].shape, cos * right + sin * down, cos * down - sin * right)

    outside, fill = outside.astype(np.float32), fill.astype(np.float32)
    edged, filled = np.clip(1.5 - outside, 0, 1), np.clip(0.5 - outside, 0, 1)
    left_over = (1 - edged) * (1 - filled)
    planes = canvas.reshape(3, -1)
    seen = planes.take(window, axis=1) * left_over
    planes[:, window] = seen + EDGE * (edged * (1 - filled)) + fill[:, :, None, None] * filled


def _distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Signed distance to the outline in radii, negative inside; y points down."""
    if shape == "circle":
        return np.hypot(x, y) - 1
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.74) - 0.26
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.86
    if shape == "cross":
        x, y = np.abs(x), np.abs(y)
        return np.minimum(np.maximum(x - 0.33, y - 1), np.maximum(x - 1, y - 0.33))
    if shape == "triangle":
        slope = np.abs(x) * math.cos(math.pi / 6) - (y - 0.2) * math.sin(math.pi / 6)
        return np.maximum(slope, y - 0.2) - 0.56
    return _star(x, y)


def _star(x: Floats, y: Floats) -> Floats:
    """A five-pointed star, folded into one tenth, in which its outline is a straight line."""
    tenth = math.pi / 5
    angle = np.abs((np.arctan2(x, -y) + tenth) % (2 * tenth) - tenth)
    tip, notch = (1.1, 0.0), (0.5 * math.cos(tenth), 0.5 * math.sin(tenth))
    side = math.dist(tip, notch)
    reach = np.hypot(x, y)
    return ((reach * np.cos(angle) - tip[0]) * notch[1] + reach * np.sin(angle) * (tip[0] - notch[0])) / side
