"""Captions in varied English over a small closed vocabulary."""

import random

from itmbench.data.mini.claims import Claim, Part

# The usual word first; the others are synonyms.
_WORDS = """
circle/disc ring/hoop square/box triangle star cross/plus
red/scarlet orange yellow/golden green blue/azure purple/violet pink white
small/little/tiny large/big/huge
plain/smooth striped checked/chequered dotted/spotted speckled/grainy wavy/rippled
"""
WORDS = {words.split("/")[0]: tuple(words.split("/")) for words in _WORDS.split()}
ANYTHING = ("thing", "object", "shape")
BACKGROUND = ("background", "backdrop")
LIGHT = {"day": ("by day", "in daylight"), "night": ("at night", "in the dark")}
VERBS = ("is", "sits", "stands", "lies")

# From the first thing to the second, and from the second back to the first.
RELATION = {
    "left": (("to the left of", "left of"), ("to the right of", "right of")),
    "above": (("above", "over"), ("below", "under", "beneath")),
}
ROWS = ("top", "bottom")
COLUMNS = ("left", "right")


def caption(claim: Claim, rng: random.Random) -> str:
    """Word the claim as an English sentence without capital or full stop, at random."""
    sentence = _relation(claim, rng) if claim.relation is not None else _list(claim, rng)
    if claim.texture is not None:
        sentence += f" {rng.choice(('on', 'against'))} a {synonym(claim.texture, rng)} {_usual(BACKGROUND, rng)}"
    if claim.light is not None:
        sentence += f" {_usual(LIGHT[claim.light], rng)}"
    return sentence


def synonym(concept: str, rng: random.Random) -> str:
    """Draw a word for the concept, mostly the usual one."""
    return _usual(WORDS[concept], rng)


def _relation(claim: Claim, rng: random.Random) -> str:
    """Place the first thing relative to the second, or the second relative to the first."""
    assert claim.relation is not None
    nouns = [_noun(part, rng) for part in claim.parts]
    direct, inverse = RELATION[claim.relation]
    if rng.random() < 0.5:
        subject, phrase, landmark = nouns[0], _usual(direct, rng), nouns[1]
    else:
        subject, phrase, landmark = nouns[1], _usual(inverse, rng), nouns[0]
    verb = rng.choice(VERBS)
    return rng.choice(
        (
            f"{subject} {phrase} {landmark}",
            f"{subject} {verb} {phrase} {landmark}",
            f"there is {subject} {phrase} {landmark}",
            f"{phrase} {landmark} {verb} {subject}",
        )
    )


def _list(claim: Claim, rng: random.Random) -> str:
    """List the things."""
    nouns = [_noun(part, rng) for part in claim.parts]
    if len(nouns) == 1:
        listed = nouns[0]
    else:
        listed = ", ".join(nouns[:-1]) + f" {rng.choice(('and', 'with') if len(nouns) == 2 else ('and',))} {nouns[-1]}"
    return rng.choice(("", "there is ", "a picture of ", "we see ")) + listed


def _noun(part: Part, rng: random.Random) -> str:
    """An article, the thing's mentioned facts, and its place."""
    words = [synonym(fact, rng) for fact in (part.size, part.colour) if fact is not None]
    words.append(_usual(ANYTHING, rng) if part.shape is None else synonym(part.shape, rng))
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join((article, *words)) + _place(part)


def _place(part: Part) -> str:
    if part.row is not None and part.column is not None:
        return f" in the {ROWS[part.row]} {COLUMNS[part.column]} corner"
    if part.row is not None:
        return f" at the {ROWS[part.row]}"
    return "" if part.column is None else f" on the {COLUMNS[part.column]}"


def _usual(words: tuple[str, ...], rng: random.Random) -> str:
    """Draw the first word with probability 3/4, else one of the others."""
    return words[0] if len(words) == 1 or rng.random() < 0.75 else rng.choice(words[1:])
