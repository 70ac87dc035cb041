import random
from collections import Counter
from dataclasses import fields
from itertools import permutations

from mini_reading import read, true_of

from itmbench.data.mini.claims import Claim, Part, sample_claims, truth
from itmbench.data.mini.language import ANYTHING, BACKGROUND, LIGHT, WORDS, caption
from itmbench.data.mini.scene import Scene, Thing, sample_scene, swap

SCENE = Scene(
    (
        Thing("circle", "red", "small", 0, 0),
        Thing("square", "blue", "large", 0, 1),
        Thing("star", "green", "large", 1, 0),
    ),
    "dotted",
    "night",
)


def by_loops(claim: Claim, scene: Scene) -> bool:
    """The claim's meaning, straight from its definition."""
    if claim.texture not in (None, scene.texture) or claim.light not in (None, scene.light):
        return False
    for things in permutations(scene.things, len(claim.parts)):
        pairs = list(zip(claim.parts, things, strict=True))
        fit = all(getattr(p, f.name) in (None, getattr(t, f.name)) for p, t in pairs for f in fields(Part))
        apart = {
            None: True,
            "left": len(things) > 1 and things[0].column < things[-1].column,
            "above": len(things) > 1 and things[0].row < things[-1].row,
        }
        if fit and apart[claim.relation]:
            return True
    return False


def test_truth_equals_plain_loops_and_own_claims_are_true() -> None:
    rng = random.Random(1)
    scenes = [sample_scene(rng, rng.choice((1, 2, 3))) for _ in range(120)]
    for scene in scenes:
        if len(scene.things) > 1:
            claims = sample_claims(scene, rng)
            assert truth(claims, scenes).tolist() == [[by_loops(claim, other) for other in scenes] for claim in claims]
            assert len(claims) == 5 and truth(claims, [scene]).all()
            assert sum(claim.relation is not None for claim in claims) >= 2


def test_swapped_scenes_differ_only_in_what_belongs_together() -> None:
    """Two sentences of the same words: one true of the scene, the other true of its swapped twin."""
    red_circle, blue_square = Part("circle", "red"), Part("square", "blue")
    blue_circle, red_square = Part("circle", "blue"), Part("square", "red")
    colours, places = swap(SCENE, 0, 1, "colour"), swap(SCENE, 0, 1, "column")
    said = Claim((red_circle, blue_square), "left")
    assert truth([said, Claim((blue_circle, red_square), "left")], [SCENE, colours]).tolist() == [[1, 0], [0, 1]]
    assert truth([said, Claim((blue_square, red_circle), "left")], [SCENE, places]).tolist() == [[1, 0], [0, 1]]
    words = [
        Counter(caption(claim, random.Random(3)).split())
        for claim in (said, Claim((blue_circle, red_square), "left"), Claim((blue_square, red_circle), "left"))
    ]
    assert words[0] == words[1] == words[2]


def test_captions_mean_what_their_claims_mean() -> None:
    """Every caption is read back into facts by rules that share nothing with the writer."""
    rng = random.Random(4)
    scenes = [sample_scene(rng, rng.choice((2, 3))) for _ in range(150)]
    claims = [claim for scene in scenes for claim in sample_claims(scene, rng)]
    verdicts = truth(claims, scenes)
    for claim, verdict in zip(claims, verdicts, strict=True):
        meaning = read(caption(claim, rng))
        assert [true_of(meaning, scene) for scene in scenes] == verdict.tolist()


def test_vocabulary_is_small_and_synonyms_are_unambiguous() -> None:
    concept_words = [word for words in WORDS.values() for word in words]
    assert len(concept_words) == len(set(concept_words))
    assert not set(concept_words) & {*ANYTHING, *BACKGROUND, *" ".join(sum(LIGHT.values(), ())).split()}
    rng = random.Random(9)
    said = " ".join(
        caption(claim, rng) for _ in range(600) for claim in sample_claims(sample_scene(rng, rng.choice((2, 3))), rng)
    )
    assert 60 <= len(set(said.replace(",", "").split())) <= 120
