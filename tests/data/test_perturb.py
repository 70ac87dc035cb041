import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import tiny_corpus
from mini_reading import read, true_of

from itmbench.data.corpus import Features, Strings
from itmbench.data.datasets import KarpathyCaptions
from itmbench.data.mini.flickr30k import plan_flickr30k
from itmbench.data.perturb import RULES, caption_probes, shuffle_words, swap_attributes, swap_nouns

# All possible results, by hand.
NOUNS = {
    "A man walks his dog.": {"A dog walks his man."},
    "A man in a red shirt walks his dog .": {
        "A shirt in a red man walks his dog .",
        "A dog in a red shirt walks his man .",
        "A man in a red dog walks his shirt .",
    },
    "Two men watch a dog , three children and an owl .": {
        "Two children watch a dog , three men and an owl .",
    },
    "an owl sits above a ring": {"a ring sits above an owl"},
    "A man and a woman hug a child.": {"A child and a woman hug a man.", "A man and a child hug a woman."},
    "A man waits an hour on a unicycle": {
        "An hour waits a man on a unicycle",
        "A unicycle waits an hour on a man",
        "A man waits a unicycle on an hour",
    },
    "A red circle and a blue star": {"A red star and a blue circle"},
    "An hour glass stands near a clock!": {"An hour clock stands near a glass!"},
}
ATTRIBUTES = {
    "A red circle left of a blue star .": {"A blue circle left of a red star ."},
    "Two dogs, three cats and one red sofa": {"Three dogs, two cats and one red sofa"},
    "A big brown dog and a small white cat": {
        "A small brown dog and a big white cat",
        "A big white dog and a small brown cat",
    },
    "a orange cat near an old , red house": {"a red cat near an old , orange house"},
    "An orange cat on a red sofa.": {"A red cat on an orange sofa."},
    "A black and white dog beside a brown dog": {
        "A brown and white dog beside a black dog",
        "A black and brown dog beside a white dog",
    },
}
ORDERS = {"A b c.": {"A c b.", "B a c.", "B c a.", "C a b.", "C b a."}}
NO_NOUNS = [
    "dogs run",
    "A man",
    "A dog chases a dog",
    "A man and a woman",  # the same in the other order
    "a circle , a square and a star at the top",
    "A dog chases two cats",  # "a cats" is no English
    "A man on the left",
    "a thing above an object",
    "A group of people",
    "A slice of bread",
]
NO_ATTRIBUTES = [
    "A man walks his dog",
    "A red circle left of a star",
    "A red circle left of a big star",
    "A grey dog and a gray cat",
    "A red circle and a blue circle",
    "A red dog and a red cat",
    "one dog and two cats",
    "A black and white dog and a black cat",
]


@pytest.mark.parametrize(
    ("rule", "cases"), [(swap_nouns, NOUNS), (swap_attributes, ATTRIBUTES), (shuffle_words, ORDERS)]
)
def test_swaps_are_all_those_that_make_sense(rule: Any, cases: dict[str, set[str]]) -> None:
    for text, expected in cases.items():
        assert {rule(text, random.Random(seed)) for seed in range(60)} == expected, text


@pytest.mark.parametrize(
    ("rule", "texts"),
    [(swap_nouns, NO_NOUNS), (swap_attributes, NO_ATTRIBUTES), (shuffle_words, ["", "...", "dog", "Dog dog dog."])],
)
def test_no_rule_applies_without_a_sensible_result(rule: Any, texts: list[str]) -> None:
    assert [text for text in texts if rule(text, random.Random(0)) is not None] == []


WORDS = st.lists(st.sampled_from(["a", "Dog", "man's", "t-shirt", "red", "3,000", "AND"]), min_size=1, max_size=8)


@given(WORDS, st.sampled_from([".", " .", "!", "", " ' "]), st.sampled_from([" ", " , ", ", "]), st.integers(0, 99))
def test_a_shuffle_is_another_order_with_its_punctuation_in_place(
    words: list[str], end: str, gap: str, seed: int
) -> None:
    text = gap.join(words) + end
    text = text[0].upper() + text[1:]
    made = shuffle_words(text, random.Random(seed))
    assert made == shuffle_words(text, random.Random(seed))
    if made is None:
        assert len({word.lower() for word in words}) == 1
        return
    assert made.endswith(end) and made.lower() != text.lower()
    shuffled = made[: len(made) - len(end)].split(gap)
    assert Counter(word.lower() for word in shuffled) == Counter(word.lower() for word in words)
    assert made[0].isupper() or not (text[0].isupper() and made[0].isalpha())
    inner = [word for word in words[1:] if word != word.lower()]
    assert all(word in made or word in made[0].lower() + made[1:] for word in inner)


def test_swapped_captions_of_the_mini_corpus_are_english_and_false() -> None:
    """Checked by an independent reader of the mini corpora's English, which fails on any other sentence."""
    photos, _ = plan_flickr30k(3, train=60, val=1, test=10)
    for rule, least in ((swap_nouns, 0.7), (swap_attributes, 0.5)):
        verdicts, captions = [], [(photo.scene, text) for photo in photos for text in photo.captions]
        for scene, text in captions:
            made = rule(f"{text[0].upper()}{text[1:]} .", random.Random(text))
            if made is not None:
                assert made[0].isupper() and made.endswith(" .")
                verdicts.append(true_of(read(made[0].lower() + made[1:-2]), scene))
        assert len(verdicts) > least * len(captions)
        assert np.mean(verdicts) < 0.01  # "a red shape and a small blue thing" may hold the other way round


CAPTIONS = [
    "dogs run",
    "a red cat and a blue dog",
    "a man hugs a dog",
    "up",
    "a cat sees a dog",
    "two men and three dogs",
]


def test_the_first_caption_that_a_rule_applies_to_is_probed() -> None:
    corpus = tiny_corpus([3, 1, 2], texts=Strings(CAPTIONS))
    probes = caption_probes(corpus, np.array([0, 1, 2]))
    names = list(RULES)
    found = [(names[rule], text) for rule, text in zip(probes.rules, probes.texts, strict=True)]
    assert found == [
        ("word_order", 0), ("nouns", 1), ("attributes", 1),
        ("word_order", 4), ("nouns", 4), ("attributes", 5),
    ]  # fmt: skip
    assert len(probes) == len(probes.strings) == 6
    assert probes.strings[0] == "run dogs" and probes.strings[5] == "three men and two dogs"
    assert len(caption_probes(corpus, np.array([1]))) == 0


def test_a_perturbed_caption_depends_on_seed_and_id_alone() -> None:
    long = "a b c d e f g h i j k l m n o p"
    corpus = tiny_corpus([3, 1, 2], texts=Strings([long] * 6))
    first = caption_probes(corpus, np.array([0, 2])).strings
    assert list(caption_probes(corpus, np.array([0, 2])).strings.strings) == list(first.strings)
    assert first[0] != first[1]  # one text, two ids
    moved = tiny_corpus([3, 1, 2], texts=Strings([long] * 6), text_to_image=np.array([2, 2, 2, 1, 0, 0]))
    assert set(caption_probes(moved, np.array([0, 2])).strings.strings) == set(first.strings)
    assert caption_probes(corpus, np.array([0]), seed=1).strings[0] != first[0]


def test_tags_and_features_have_no_probes() -> None:
    assert not len(
        caption_probes(tiny_corpus([3, 1, 2], texts=Strings(CAPTIONS), labels=np.ones((3, 1), np.uint8)), np.arange(3))
    )
    assert not len(caption_probes(tiny_corpus([3, 1, 2], texts=Features(np.zeros((6, 2)))), np.arange(3)))


def test_real_captions_keep_their_words(shared_data: Path) -> None:
    corpus = KarpathyCaptions(shared_data / "flickr8k").read()
    images = corpus.stages["test"].images[:200]
    probes = caption_probes(corpus, images)
    shares = np.bincount(probes.rules) / len(images)
    assert shares[0] == 1 and shares[1] > 0.9 and shares[2] > 0.25
    for text, made in zip(probes.texts, probes.strings.strings, strict=True):
        words = [Counter(re.findall(r"\w+", each.lower())) for each in (str(corpus.texts[text]), made)]
        changed = (words[0] - words[1]) + (words[1] - words[0])
        assert set(changed) <= {"a", "an"}
        assert made != corpus.texts[text]
