import re

import pytest

from itmbench.data.noun_phrases import ATTRIBUTES, is_plural, noun_phrases

# Brackets around each phrase, a star before its noun.
CAPTIONS = [
    "[A *man] in [a blue *shirt] is standing on [a *ladder] cleaning [a *window]",
    "[Two young *men] and [three *dogs] run through [the deep *snow]",
    "[A *dog] snarls at [another *dog]",
    "[The *dog] jumps over [the wooden *fence] while [his *owner] watches",
    "[A smiling young *woman] walks away from [a busy *street]",
    "[A black and white *dog] chases [a brown , furry *cat]",
    "[A *man] in black holds [a tennis *racket]",
    "[The *building] has [a red brick *wall] and [large *windows]",
    "[A *snowboarder] rides down [a snow covered *hill]",
    "[A *group] of [*people] wait near [the big *bus]",
    "One is drilling while another waits , and they talk to him",
    "[A brown haired *girl] slides down [the *slide]",
    "[The *children] play on [the *grass] , [a *ball] at [their *feet]",
    "[A man 's *hat] lies on [the left *side] of [the *bed]",
    "to the left of [a large *circle] sits [an orange *star] in the dark",
    "[A *boy] quickly eats [his *food]",
    "[A man 's *glasses] , [a young boy 's red *hats]",
    "[The baseball player's *bat] is broken , and he 's sad",
    "[A *man] and [a *woman] kiss on [a ski *jump]",
    "[The *couple] hug [a *child]",
    "dogs sleep in water",
]


@pytest.mark.parametrize("marked", CAPTIONS)
def test_phrases_are_those_that_a_reader_marks(marked: str) -> None:
    words: list[str] = []
    gaps: list[str] = []
    expected: list[tuple[int, int]] = []
    start = noun = 0
    gap = ""
    for piece in marked.split():
        bare = piece.strip("[]*").lower()
        if re.fullmatch(r"\W", bare):
            gap = bare + " "
            continue
        if piece.startswith("["):
            start = len(words)
        if "*" in piece:
            noun = len(words)
        if piece.endswith("]"):
            expected.append((start, noun))
        words.append(bare)
        gaps.append(gap)
        gap = " "
    found = noun_phrases(words, gaps)
    assert [(phrase.start, phrase.noun) for phrase in found] == expected
    for phrase in found:
        described = [place for place in phrase.places if words[place] in ATTRIBUTES]
        assert list(phrase.attributes) == described


def test_plurals() -> None:
    plural = "dogs men women children people glasses scissors firemen"
    singular = "dog glass bus tennis canvas man fish sports"
    assert all(is_plural(noun) for noun in plural.split())
    assert not any(is_plural(noun) for noun in singular.split())
