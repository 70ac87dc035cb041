import random

import numpy as np

from itmbench.data.mini.albums import TOPICS, overlook, sample_tags, sample_upload
from itmbench.data.mini.scene import Scene, Thing

STAR, CROSS = Thing("star", "pink", "small", 0, 0), Thing("cross", "blue", "large", 0, 1)


def test_tags_describe_the_picture_in_part() -> None:
    rng = random.Random(3)
    uploads = [sample_upload(rng, (1, 2, 3), loyalty=0.5) for _ in range(1500)]
    facts = [{fact for thing in upload.scene.things for fact in (thing.colour, thing.shape)} for upload in uploads]
    assert 0.6 < np.mean([bool(fact & set(upload.tags)) for fact, upload in zip(facts, uploads, strict=True)]) < 0.95
    assert 0.02 < np.mean([not upload.tags for upload in uploads]) < 0.08
    assert all(len(upload.tags) == len(set(upload.tags)) for upload in uploads)


def test_tags_and_loyal_scenes_follow_their_topic() -> None:
    rng = random.Random(4)
    favourites = {}
    for loyalty in (0.0, 0.8):
        uploads = [sample_upload(rng, (1,), loyalty) for _ in range(400)]
        things = [(upload.scene.things[0], upload.topic) for upload in uploads]
        favourites[loyalty] = np.mean([(thing.colour, thing.shape) in topic.favourites for thing, topic in things])
    assert favourites[0.0] < 0.2 and favourites[0.8] > 0.7
    scene, tags = Scene((STAR,), "plain", "day"), set(TOPICS[0].tags)
    own, other = (sum(bool(tags & set(sample_tags(scene, topic, rng))) for _ in range(300)) for topic in TOPICS[:2])
    assert own > 3 * other > 0


def test_annotators_overlook_only_small_things_among_several() -> None:
    rng = random.Random(6)
    seen = [overlook(Scene((STAR, CROSS), "plain", "day"), rng).things for _ in range(400)]
    assert all(CROSS in things for things in seen)
    assert 0.05 < np.mean([STAR not in things for things in seen]) < 0.25
    assert all(overlook(Scene((STAR,), "plain", "day"), rng).things == (STAR,) for _ in range(100))
