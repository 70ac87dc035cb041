"""Photographs as users of a photo site upload them: recurring topics, and tags that describe them only in part."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from itmbench.data.mini.language import synonym
from itmbench.data.mini.scene import Scene, Topic, sample_scene

# By popularity: the second topic has half as many photographs as the first, the third a third, and so on.
_TOPICS = """
fair    | red star, yellow ring, pink circle, blue triangle        | striped  | 0.2 | fair carnival fun festival
harbour | white triangle, orange ring, blue square, red cross      | wavy     | 0.1 | harbour boats sea water
garden  | pink star, green triangle, yellow circle, purple cross   | speckled | 0.0 | garden flowers spring nature
city    | white square, yellow square, green cross, red circle     | checked  | 0.2 | city street urban architecture
sky     | white star, yellow star, white cross, purple ring        | dotted   | 0.9 | sky astronomy longexposure stars
kitchen | orange circle, red circle, green square, white ring      | plain    | 0.1 | food kitchen homemade breakfast
desert  | orange triangle, yellow circle, green cross, pink square | speckled | 0.0 | desert travel sand landscape
road    | red triangle, blue circle, white cross, orange square    | plain    | 0.2 | road cars traffic roadtrip
"""
TOPICS = tuple(
    Topic(name, tuple(tuple(thing.split()) for thing in things.split(", ")), texture, float(night), tuple(tags.split()))
    for line in _TOPICS.strip().splitlines()
    for name, things, texture, night, tags in [map(str.strip, line.split("|"))]
)

# Tags unrelated to the picture, the most popular first.
_IRRELEVANT = """
nikon canon explore interestingness 2007 2008 2006 photo photography digital macro bw flickr sony olympus pentax hdr
geotagged abigfave art colour color light favourite friends family me portrait travel holiday vacation trip weekend
birthday party summer winter autumn spring january february march april may june july august september october
november december london paris berlin madrid rome lisbon vienna prague tokyo sydney toronto chicago boston usa uk
france germany spain italy portugal austria japan australia canada brazil india china norway sweden 50mm 35mm film
polaroid lomo vintage retro closeup focus bokeh blur contrast texture pattern abstract geometry design minimal
graphic simple cool nice beautiful wonderful amazing cute happy love peace hope dream music dance
"""
IRRELEVANT = tuple(_IRRELEVANT.split())


@dataclass(frozen=True)
class Upload:
    """A photograph: its topic, its scene, the seed of its appearance, and its user's tags."""

    topic: Topic
    scene: Scene
    seed: int
    tags: tuple[str, ...]


def sample_upload(rng: random.Random, counts: Sequence[int], loyalty: float) -> Upload:
    """Draw an upload with one of ``counts`` things, whose facts follow its topic with probability ``loyalty``."""
    topic = rng.choices(TOPICS, [1 / rank for rank in range(1, len(TOPICS) + 1)])[0]
    scene = sample_scene(rng, rng.choice(counts), topic, loyalty)
    return Upload(topic, scene, rng.getrandbits(32), sample_tags(scene, topic, rng))


def sample_tags(scene: Scene, topic: Topic, rng: random.Random) -> tuple[str, ...]:
    """Draw tags without repetition: synonyms, missing facts, wrong and irrelevant words; one upload in 25 has none."""
    if rng.random() < 0.04:
        return ()
    tags = []
    for thing in scene.things:
        tags += [synonym(fact, rng) for fact in (thing.colour, thing.shape) if rng.random() < 0.6]
        tags += [synonym(thing.size, rng)] if rng.random() < 0.1 else []
    tags += [synonym(scene.texture, rng)] if rng.random() < 0.5 else []
    tags += [rng.choice(("night", "dark"))] if scene.light == "night" and rng.random() < 0.5 else []
    tags += [tag for tag in topic.tags if rng.random() < 0.15]
    tags += [rng.choice(rng.choice(TOPICS).tags)] if rng.random() < 0.15 else []
    # The square of a uniform number: popular tags come first in the list and are drawn most often.
    tags += [IRRELEVANT[int(rng.random() ** 2 * len(IRRELEVANT))] for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    tags += [f"dsc{rng.randrange(10000):04d}"] if rng.random() < 0.1 else []
    rng.shuffle(tags)
    return tuple(dict.fromkeys(tags))


def overlook(scene: Scene, rng: random.Random) -> Scene:
    """What an annotator notices: a small thing among several is overlooked with probability 1/8."""
    alone = len(scene.things) == 1
    seen = (thing for thing in scene.things if alone or thing.size == "large" or rng.random() >= 0.125)
    return replace(scene, things=tuple(seen))


def write_lines(path: Path, lines: Iterable[object]) -> None:
    """Write a text file, and the folder that it belongs in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
