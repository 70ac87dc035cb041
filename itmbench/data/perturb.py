"""Captions perturbed by rules, to test whether a model reads a caption as more than a bag of words.

After the probes of Thrush et al. ("Winoground", CVPR 2022) and Yuksekgonul et al. ("When and why vision-language models
behave like bags-of-words", ICLR 2023), but without a parser or a language model.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from itmbench.data.corpus import Corpus, Rows, Strings
from itmbench.data.noun_phrases import ATTRIBUTES, NounPhrase, is_plural, noun_phrases, word_list

_WORD = re.compile(r"[^\W_]+(?:['’&/-][^\W_]+|[.,]\d+)*|['’]s\b")
# Nouns of place, time or amount: swapping one with a thing gives no sensible sentence.
_NO_THINGS = word_list(
    """left right top bottom middle center centre front back rear side sides end edge corner corners background backdrop
    foreground distance air way time day night morning evening afternoon dark daylight direction directions picture
    photo photograph image group groups pair pairs couple bunch number variety row line series lot kind type piece
    pieces part set"""
)
# Nouns for the same thing: swapping them would change nothing.
_SYNONYM_GROUPS = """thing/object/shape/item circle/disc ring/hoop man/guy/gentleman men/guys/gentlemen woman/lady
women/ladies child/kid children/kids bike/bicycle plane/airplane sofa/couch"""
_SYNONYMS = {word: group.split("/")[0] for group in _SYNONYM_GROUPS.split() for word in group.split("/")}
# Between two phrases, these words give both the same role: "a man and a dog", "a dog next to a man".
_SYMMETRIC = {"and", "or", "with", "beside", "near", "next", "to", "by", "alongside"}


def shuffle_words(text: str, rng: random.Random) -> str | None:
    """Shuffle the words of a text but not its punctuation; None if there is no other order."""
    words, gaps = _split(text)
    lower = [word.lower() for word in words]
    if len(set(lower)) < 2:
        return None
    order = list(range(len(words)))
    while [lower[place] for place in order] == lower:
        rng.shuffle(order)
    return _join(_reordered(words, order), gaps)


def swap_nouns(text: str, rng: random.Random) -> str | None:
    """Swap two nouns of a text, both singular or both plural; None if no two can be swapped.

    >>> swap_nouns("A man in a red shirt walks.", random.Random(0))
    'A shirt in a red man walks.'
    """
    return _swap(text, rng, _noun_pairs)


def swap_attributes(text: str, rng: random.Random) -> str | None:
    """Swap the colours, sizes, numbers or other attributes of two things; None if no two can be swapped.

    >>> swap_attributes("An orange cat and two dogs on a red sofa.", random.Random(0))
    'A red cat and two dogs on an orange sofa.'
    """
    return _swap(text, rng, _attribute_pairs)


RULES: dict[str, Callable[[str, random.Random], str | None]] = {
    "word_order": shuffle_words,
    "nouns": swap_nouns,
    "attributes": swap_attributes,
}


@dataclass(frozen=True, eq=False)
class Probes:
    """Perturbed captions, image by image."""

    rules: Rows  # index of each caption's rule in ``RULES`` `[P]`
    texts: Rows  # corpus row of each caption's original `[P]`
    strings: Strings  # the perturbed captions `[P]`

    def __len__(self) -> int:
        return len(self.rules)


def caption_probes(corpus: Corpus, images: Rows, seed: int = 0) -> Probes:
    """Perturb, for each image and rule, the image's first caption that the rule applies to.

    The result depends only on the seed, the rule and the caption with its id. Corpora with labels, whose texts are
    tags, and corpora of features have no probes.
    """
    texts = corpus.texts
    probes: list[tuple[int, int, str]] = []
    if isinstance(texts, Strings) and corpus.labels is None:
        for image in images:
            for number, (name, rule) in enumerate(RULES.items()):
                for row in corpus.texts_of_image[image]:
                    perturbed = rule(texts[row], random.Random(f"{seed} {name} {corpus.text_ids[row]}"))
                    if perturbed is not None:
                        probes.append((number, row, perturbed))
                        break
    return Probes(
        np.array([number for number, _, _ in probes], dtype=np.int64),
        np.array([row for _, row, _ in probes], dtype=np.int64),
        Strings([perturbed for _, _, perturbed in probes]),
    )


def _swap(
    text: str,
    rng: random.Random,
    pairs: Callable[[Sequence[str], Sequence[NounPhrase]], Iterator[tuple[int, int]]],
) -> str | None:
    words, gaps = _split(text)
    lower = [word.lower() for word in words]
    candidates = list(pairs(lower, noun_phrases(lower, gaps)))
    if not candidates:
        return None
    one, other = rng.choice(candidates)
    order = list(range(len(words)))
    order[one], order[other] = other, one
    swapped = _reordered(words, order)
    for place in (one, other):
        if place and lower[place - 1] in ("a", "an"):
            swapped[place - 1] = words[place - 1][0] + ("n" if _begins_with_vowel(swapped[place].lower()) else "")
    return _join(swapped, gaps)


def _noun_pairs(words: Sequence[str], phrases: Sequence[NounPhrase]) -> Iterator[tuple[int, int]]:
    """Positions of two different nouns that can be swapped."""
    things = [
        phrase
        for phrase in phrases
        if words[phrase.noun] not in _NO_THINGS and words[phrase.noun + 1 : phrase.noun + 2] != ["of"]
    ]
    for one, other in combinations(things, 2):
        nouns = [_SYNONYMS.get(words[phrase.noun], words[phrase.noun]) for phrase in (one, other)]
        alike = is_plural(nouns[0]) == is_plural(nouns[1])
        if nouns[0] != nouns[1] and alike and not _is_symmetric(words, phrases, one, other, one.noun, other.noun):
            yield one.noun, other.noun


def _attribute_pairs(words: Sequence[str], phrases: Sequence[NounPhrase]) -> Iterator[tuple[int, int]]:
    """Positions of two attributes of one class and different meaning, of which the other thing has neither."""
    for one, other in combinations(phrases, 2):
        meanings = [{ATTRIBUTES[words[place]] for place in phrase.attributes} for phrase in (one, other)]
        for first in one.attributes:
            for second in other.attributes:
                a, b = ATTRIBUTES[words[first]], ATTRIBUTES[words[second]]
                new = a not in meanings[1] and b not in meanings[0]
                if a[0] == b[0] and new and not _is_symmetric(words, phrases, one, other, first, second):
                    yield first, second


def _is_symmetric(
    words: Sequence[str],
    phrases: Sequence[NounPhrase],
    one: NounPhrase,
    other: NounPhrase,
    first: int,
    second: int,
) -> bool:
    """Whether swapping two words amounts to swapping their phrases in a list, which leaves the meaning unchanged."""
    rest = [
        ["a" if words[at] == "an" else _SYNONYMS.get(words[at], words[at]) for at in phrase.places if at != place]
        for phrase, place in ((one, first), (other, second))
    ]
    inner = {at for phrase in phrases for at in phrase.places}
    return rest[0] == rest[1] and all(words[at] in _SYMMETRIC for at in range(one.noun, other.start) if at not in inner)


def _split(text: str) -> tuple[list[str], list[str]]:
    """The words, and the text before each of them and after the last."""
    spans = [match.span() for match in _WORD.finditer(text)]
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    return [text[start:end] for start, end in spans], [text[e:s] for e, s in zip(ends, starts, strict=True)]


def _join(words: Sequence[str], gaps: Sequence[str]) -> str:
    return gaps[0] + "".join(word + gap for word, gap in zip(words, gaps[1:], strict=True))


def _reordered(words: Sequence[str], order: Sequence[int]) -> list[str]:
    """``words[order]``, with the sentence's capital letter kept at its beginning."""
    moved = [words[place] for place in order]
    first = words[0]
    if order[0] and first[0].isupper():
        moved[order.index(0)] = first.lower() if first == first.capitalize() and first != "I" else first
        moved[0] = moved[0][0].upper() + moved[0][1:]
    return moved


def _begins_with_vowel(word: str) -> bool:
    """Whether a word sounds as if it begins with a vowel, judged by its letters."""
    return bool(re.match(r"(?!uni|use|eu|one|once)[aeiou]|hour|honest|heir", word))
