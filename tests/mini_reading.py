"""An independent reader of the mini corpora's English: sentence to facts by regular expressions, facts to truth."""

import re
from itertools import permutations
from typing import NamedTuple

from itmbench.data.mini.scene import Scene, Thing

SHAPES = {
    "circle": "circle", "disc": "circle", "ring": "ring", "hoop": "ring", "square": "square", "box": "square",
    "triangle": "triangle", "star": "star", "cross": "cross", "plus": "cross", "thing": "", "object": "", "shape": "",
}  # fmt: skip
COLOURS = {
    "red": "red", "scarlet": "red", "orange": "orange", "yellow": "yellow", "golden": "yellow", "green": "green",
    "blue": "blue", "azure": "blue", "purple": "purple", "violet": "purple", "pink": "pink", "white": "white",
}  # fmt: skip
SIZES = {"small": "small", "little": "small", "tiny": "small", "large": "large", "big": "large", "huge": "large"}
TEXTURES = {
    "plain": "plain", "smooth": "plain", "striped": "striped", "checked": "checked", "chequered": "checked",
    "dotted": "dotted", "spotted": "dotted", "speckled": "speckled", "grainy": "speckled", "wavy": "wavy",
    "rippled": "wavy",
}  # fmt: skip
LIGHTS = {"by day": "day", "in daylight": "day", "at night": "night", "in the dark": "night"}

PLACE = r"(?: in the (?:top|bottom) (?:left|right) corner| at the (?:top|bottom)| on the (?:left|right))?"
NOUN = rf"an? (?:(?:{'|'.join((*COLOURS, *SIZES))}) )*(?:{'|'.join(SHAPES)}){PLACE}"
SIDES = r"(to the left of|left of|to the right of|right of|above|over|below|under|beneath)"
VERB = r"(?:is|sits|stands|lies)"


class Meaning(NamedTuple):
    """Words said of each thing, which side the first is of the second, texture and light."""

    things: list[str]
    side: str | None
    texture: str | None
    light: str | None


def read(sentence: str) -> Meaning:
    """The facts that a sentence states."""
    light = next((LIGHTS[phrase] for phrase in LIGHTS if sentence.endswith(" " + phrase)), None)
    if light is not None:
        sentence = re.sub(rf" (?:{'|'.join(LIGHTS)})$", "", sentence)
    ground = re.search(r" (?:on|against) a (\w+) (?:background|backdrop)$", sentence)
    texture = None
    if ground is not None:
        texture, sentence = TEXTURES[ground[1]], sentence[: ground.start()]
    sentence = re.sub(r"^(?:there is|a picture of|we see) ", "", sentence)
    if told := re.fullmatch(rf"({NOUN}) (?:{VERB} )?{SIDES} ({NOUN})", sentence):
        return Meaning([told[1], told[3]], told[2], texture, light)
    if told := re.fullmatch(rf"{SIDES} ({NOUN}) {VERB} ({NOUN})", sentence):
        return Meaning([told[3], told[2]], told[1], texture, light)
    assert re.fullmatch(rf"{NOUN}(?:(?:, | and | with ){NOUN})*", sentence), sentence
    return Meaning(re.findall(NOUN, sentence), None, texture, light)


def true_of(meaning: Meaning, scene: Scene) -> bool:
    """Whether the sentence is true of the scene."""
    if meaning.texture not in (None, scene.texture) or meaning.light not in (None, scene.light):
        return False
    return any(
        all(_is(words, thing) for words, thing in zip(meaning.things, things, strict=True))
        and (meaning.side is None or _stands(meaning.side, *things))
        for things in permutations(scene.things, len(meaning.things))
    )


def _is(words: str, thing: Thing) -> bool:
    where = {"top": thing.row == 0, "bottom": thing.row == 1, "left": thing.column == 0, "right": thing.column == 1}
    for word in words.split():
        if word in where and not where[word]:
            return False
        if (word in COLOURS and COLOURS[word] != thing.colour) or (word in SIZES and SIZES[word] != thing.size):
            return False
        if SHAPES.get(word) and SHAPES[word] != thing.shape:
            return False
    return True


def _stands(side: str, one: Thing, other: Thing) -> bool:
    if "left" in side:
        return one.column < other.column
    if "right" in side:
        return one.column > other.column
    return one.row < other.row if side in ("above", "over") else one.row > other.row
