"""mirflickr-mini and nuswide-mini on disk: layouts, labels and tags."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from itmbench.data.mini.albums import TOPICS, overlook, sample_tags, sample_upload
from itmbench.data.mini.mirflickr import labels, render_mirflickr
from itmbench.data.mini.nuswide import concepts, render_nuswide
from itmbench.data.mini.scene import COLOURS, SHAPES, Scene, Thing

ROWS = 400


@pytest.fixture(scope="module")
def mirflickr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "mirflickr-mini"
    render_mirflickr(root, 0, images=ROWS)
    return root


@pytest.fixture(scope="module")
def nuswide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "nuswide-mini"
    render_nuswide(root, 1, images=ROWS, repeated=5)
    return root


def relevance(multi_hot: NDArray[np.float64]) -> float:
    """Share of pairs with a common label, which is the mAP of random scores in a large gallery."""
    shared = multi_hot @ multi_hot.T > 0
    return float(shared.mean())


def test_mirflickr_layout(mirflickr: Path) -> None:
    images = {path.name for path in (mirflickr / "mirflickr").glob("*.jpg")}
    assert images == {f"im{number}.jpg" for number in range(1, ROWS + 1)}
    tags = {path.name for path in (mirflickr / "mirflickr/meta/tags").iterdir()}
    assert tags == {f"tags{number}.txt" for number in range(1, ROWS + 1)}
    annotations = {path.stem for path in (mirflickr / "mirflickr25k_annotations_v080").iterdir()}
    stricter = {name for name in annotations if name.endswith("_r1")}
    assert stricter == {f"{name}_r1" for name in (*SHAPES, *COLOURS)}
    assert len(annotations - stricter - {"README"}) == 24
    for name in images:
        with Image.open(mirflickr / "mirflickr" / name) as image:
            assert image.convert("RGB").size == (64, 64)


def test_mirflickr_common_tags_are_counted_from_the_tag_files(mirflickr: Path) -> None:
    files = (mirflickr / "mirflickr/meta/tags").iterdir()
    counts = Counter(tag for path in files for tag in path.read_text().splitlines())
    listed = [line.split() for line in (mirflickr / "mirflickr/doc/common_tags.txt").read_text().splitlines()]
    assert {tag: int(count) for tag, count in listed} == {t: n for t, n in counts.items() if n >= 20}
    assert {1, 19, 20} <= set(counts.values())  # rare tags to drop, and both sides of the threshold


def test_mirflickr_numbers_are_sorted_in_range_and_stricter_ones_are_fewer(mirflickr: Path) -> None:
    folder = mirflickr / "mirflickr25k_annotations_v080"
    for path in folder.glob("*.txt"):
        if path.stem == "README":
            continue
        numbers = [int(line) for line in path.read_text().splitlines()]
        assert numbers == sorted(set(numbers))
        assert 1 <= numbers[0] <= numbers[-1] <= ROWS
        if path.stem.endswith("_r1"):
            potential = {int(line) for line in (folder / f"{path.stem[:-3]}.txt").read_text().splitlines()}
            assert set(numbers) < potential


def test_mirflickr_label_statistics(mirflickr: Path) -> None:
    folder = mirflickr / "mirflickr25k_annotations_v080"
    names = sorted(path for path in folder.glob("*.txt") if path.stem != "README" and not path.stem.endswith("_r1"))
    multi_hot = np.zeros((ROWS, 24))
    for column, path in enumerate(names):
        multi_hot[[int(line) - 1 for line in path.read_text().splitlines()], column] = 1
    assert 3 <= multi_hot.sum(1).mean() <= 4.2
    assert 0.4 <= relevance(multi_hot) <= 0.55


def test_labels_of_hand_made_scenes() -> None:
    small_star, large_cross = Thing("star", "pink", "small", 0, 0), Thing("cross", "blue", "large", 0, 1)
    assert labels(Scene((small_star, large_cross), "wavy", "night")) == {
        "star": False, "cross": True, "blue": True, "wavy": False, "night": False, "side_by_side": False,
    }  # fmt: skip
    large_ring = Thing("ring", "red", "large", 1, 1)
    assert labels(Scene((large_cross, large_ring), "plain", "day")) == {
        "cross": True, "ring": True, "blue": False, "red": False, "giants": False, "stacked": False,
    }  # fmt: skip
    assert concepts(Scene((small_star, large_cross), "plain", "night")) == {"pink_star", "blue_cross", "night"}


def test_nuswide_files_agree_row_by_row(nuswide: Path) -> None:
    lines = (nuswide / "ImageList/Imagelist.txt").read_text().splitlines()
    assert len(lines) == ROWS
    assert all(line.count("\\") == 1 for line in lines)
    for line in lines:
        with Image.open(nuswide / "Flickr" / line.replace("\\", "/")) as image:
            assert image.convert("RGB").size == (64, 64)
    tagged = [line.split() for line in (nuswide / "NUS_WID_Tags/All_Tags.txt").read_text().splitlines()]
    assert [row[0] for row in tagged] == [line.removesuffix(".jpg").split("_")[1] for line in lines]
    vocabulary = (nuswide / "NUS_WID_Tags/TagList1k.txt").read_text().splitlines()
    assert len(vocabulary) == len(set(vocabulary)) >= 100
    matrix = (nuswide / "NUS_WID_Tags/AllTags1k.txt").read_text().split("\n")
    assert matrix.pop() == ""
    for row, flags in zip(tagged, matrix, strict=True):
        assert flags.endswith("\t")
        assert [tag for tag, flag in zip(vocabulary, flags[:-1].split("\t"), strict=True) if flag == "1"] == [
            tag for tag in vocabulary if tag in row[1:]
        ]
    assert any(set(row[1:]) - set(vocabulary) for row in tagged)  # tags outside the list
    assert any(len(row) == 1 for row in tagged)  # rows without tags


def test_nuswide_repeats_photographs_under_one_id(nuswide: Path) -> None:
    lines = (nuswide / "ImageList/Imagelist.txt").read_text().splitlines()
    rows_of: dict[str, list[Path]] = {}
    for line in lines:
        rows_of.setdefault(line.split("_")[1], []).append(nuswide / "Flickr" / line.replace("\\", "/"))
    twice = [paths for paths in rows_of.values() if len(paths) > 1]
    assert len(twice) == 5
    assert all(one.read_bytes() == other.read_bytes() and one.parent != other.parent for one, other in twice)


def test_nuswide_label_statistics(nuswide: Path) -> None:
    names = (nuswide / "ConceptsList/Concepts81.txt").read_text().splitlines()
    assert len(names) == len(set(names)) >= 25
    files = [nuswide / "Groundtruth/AllLabels" / f"Labels_{name}.txt" for name in names]
    assert set(files) == set((nuswide / "Groundtruth/AllLabels").iterdir())
    multi_hot = np.array([[float(flag) for flag in path.read_text().splitlines()] for path in files]).T
    assert multi_hot.shape == (ROWS, len(names))
    frequent = multi_hot[:, np.argsort(-multi_hot.sum(0), kind="stable")[:21]]
    labelled = frequent[frequent.sum(1) > 0]
    assert 0 < ROWS - len(labelled) < ROWS // 8  # a few rows without any of the 21
    assert 1.5 <= labelled.sum(1).mean() <= 3.5
    assert 0.28 <= relevance(labelled) <= 0.45


def test_tags_are_partly_about_the_picture() -> None:
    """Most uploads name a colour or shape they show, some a wrong one; some say nothing; none repeats a tag."""
    rng = random.Random(3)
    uploads = [sample_upload(rng, (1, 2, 3), loyalty=0.5) for _ in range(1500)]
    facts = [{fact for thing in upload.scene.things for fact in (thing.colour, thing.shape)} for upload in uploads]
    telling = np.mean([bool(fact & set(upload.tags)) for fact, upload in zip(facts, uploads, strict=True)])
    assert 0.6 < telling < 0.95
    assert 0.02 < np.mean([not upload.tags for upload in uploads]) < 0.08
    assert all(len(upload.tags) == len(set(upload.tags)) for upload in uploads)


def test_tags_follow_the_topic() -> None:
    scene = Scene((Thing("star", "pink", "small", 0, 0),), "plain", "day")
    rng = random.Random(4)
    about = [set(sample_tags(scene, TOPICS[0], rng)) & set(TOPICS[0].tags) for _ in range(300)]
    elsewhere = [set(sample_tags(scene, TOPICS[1], rng)) & set(TOPICS[0].tags) for _ in range(300)]
    assert sum(map(bool, about)) > 3 * sum(map(bool, elsewhere)) > 0


def test_loyalty_makes_scenes_follow_their_topic() -> None:
    def share(loyalty: float) -> float:
        uploads = [sample_upload(rng, (1,), loyalty) for _ in range(400)]
        first = [(upload.scene.things[0], upload.topic) for upload in uploads]
        return float(np.mean([(thing.colour, thing.shape) in topic.favourites for thing, topic in first]))

    rng = random.Random(5)
    assert share(0.0) < 0.2
    assert share(0.8) > 0.7


def test_annotators_overlook_small_things_in_company_only() -> None:
    small, large = Thing("star", "pink", "small", 0, 0), Thing("cross", "blue", "large", 0, 1)
    rng = random.Random(6)
    seen = [overlook(Scene((small, large), "plain", "day"), rng).things for _ in range(400)]
    assert all(large in things for things in seen)
    assert 0.05 < np.mean([small not in things for things in seen]) < 0.25
    assert overlook(Scene((small,), "plain", "day"), random.Random(7)).things == (small,)
