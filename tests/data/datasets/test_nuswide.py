import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import Cases, lines, refused, remove, write
from layouts import NUSWIDE_PATHS, numbers_of, write_lines, write_nuswide

from itmbench.data.corpus import Corpus, Features, Strings
from itmbench.data.datasets import NUSWide
from itmbench.errors import InputError, MissingImages


def read(root: Path, **options: Any) -> Corpus:
    return NUSWide(root, queries=1, train=2, val=1, **options).read()


def strings(corpus: Corpus) -> list[str]:
    assert isinstance(corpus.texts, Strings)
    return list(corpus.texts.strings)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("slash", ["\\", "/"])
def test_rows_with_a_concept_are_kept(tmp_path: Path, slash: str, ending: str) -> None:
    paths = [path.replace("\\", slash) for path in NUSWIDE_PATHS]
    corpus = read(write_nuswide(tmp_path, paths, ending=ending))
    assert corpus.name == "nuswide-tc21"
    # row 1 has no concept; rows 0 and 3 are of one photo id and both stay
    ids = ["actor/0001_111.jpg", "zebra/0001_333.jpg", "zebra/0002_111.jpg", "zebra/0003_444.jpg"]
    assert list(corpus.image_ids) == list(corpus.text_ids) == ids
    assert numbers_of(corpus.images) == [0, 2, 3, 4]
    assert corpus.groups is not None
    assert np.equal.outer(corpus.groups, corpus.groups).sum() == 6  # rows 0 and 3 of photo 111
    assert strings(corpus) == ["zoo sky", "", "sky zoo", "tree sky"]
    assert list(corpus.label_names) == ["person", "sky", "animal", "cow"]
    assert corpus.labels is not None
    assert corpus.labels.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    counts = [(count.found, count.published) for count in corpus.counts]
    assert counts == [(5, 269_648), (3, 1_000), (0, 16), (4, 195_834)]
    bags = read(tmp_path, text="bow").texts
    assert isinstance(bags, Features)
    vocabulary = np.array(["sky", "tree", "zoo"])
    assert [set(vocabulary[row > 0]) for row in bags.array[:]] == [set(text.split()) for text in strings(corpus)]


def test_rows_without_a_tag_may_be_dropped(tmp_path: Path) -> None:
    corpus = read(write_nuswide(tmp_path), require_tag=True)
    assert (corpus.name, read(tmp_path, name="other").name) == ("nuswide-tc21-tagged", "other-tc21")
    assert strings(corpus) == ["zoo sky", "sky zoo", "tree sky"]
    assert (corpus.counts[-1].found, corpus.counts[-1].published) == (3, 190_421)
    assert not any(count.published for count in read(tmp_path, name="other").counts)


def test_rows_without_their_image_may_be_dropped(tmp_path: Path) -> None:
    root = write_nuswide(tmp_path)
    whole = read(root, missing_images="drop")
    assert whole.fingerprint == read(root).fingerprint and whole.counts[-1].found == 0
    (root / "Flickr" / "zebra" / "0001_333.jpg").unlink()
    with pytest.raises(MissingImages, match=r"1 of 4 images is missing, .*missing_images: drop") as refused:
        read(root)
    assert pickle.loads(pickle.dumps(refused.value)).names == refused.value.names == ["zebra/0001_333.jpg"]
    corpus = read(root, missing_images="drop")
    assert list(corpus.image_ids) == ["actor/0001_111.jpg", "zebra/0002_111.jpg", "zebra/0003_444.jpg"]
    assert numbers_of(corpus.images) == [0, 3, 4] and strings(corpus) == ["zoo sky", "sky zoo", "tree sky"]
    assert corpus.labels is not None and len(corpus.labels) == 3 and corpus.fingerprint != whole.fingerprint
    assert corpus.missing == ["zebra/0001_333.jpg"]
    assert (corpus.counts[-1].what, corpus.counts[-1].found) == ("rows without their image", 1)
    (tmp_path / "other").mkdir()
    with pytest.raises(MissingImages, match="4 of 4 images are missing"):  # a wrong folder, not an incomplete one
        read(root, missing_images="drop", images=tmp_path / "other")


def test_strings_follow_the_matrix_if_the_tag_files_differ(tmp_path: Path) -> None:
    root = write_nuswide(tmp_path)
    bits = ["1\t1\t0\t", "1\t0\t0\t", "0\t0\t0\t", "1\t0\t1\t", "1\t1\t0\t"]
    write_lines(root / "NUS_WID_Tags" / "AllTags1k.txt", bits)
    corpus = read(root)
    assert strings(corpus)[0] == "sky tree"  # "zoo" is not in the matrix, "tree" only there
    assert corpus.counts[2].found == 1


@pytest.mark.parametrize("concepts", ["tc21", "tc10"])
def test_most_frequent_concepts_and_default_sizes(tmp_path: Path, concepts: Any) -> None:
    rng = np.random.default_rng(0)
    flags = rng.random((30, 81)) < np.linspace(0.9, 0.02, 81)
    labels = {f"c{80 - column:02d}": flags[:, column].astype(int).tolist() for column in range(81)}
    paths = [f"f\\{row:04d}_{row}.jpg" for row in range(30)]
    root = write_nuswide(tmp_path, paths, [["sky"]] * 30, labels, images=None)
    corpus = read(root, concepts=concepts)
    most = int(concepts[2:])
    ranked = sorted(labels, key=lambda name: (-sum(labels[name]), name))  # ties by name, not by place in the list
    assert corpus.label_names == sorted(ranked[:most], reverse=True)
    assert sum(labels[ranked[most - 1]]) == sum(labels[ranked[most]])
    assert corpus.name == f"nuswide-{concepts}" and read(root, concepts="all").name == "nuswide-all"
    sizes = {"tc21": "2,100 queries and 10,500", "tc10": "2,000 queries and 5,000"}
    with pytest.raises(InputError, match=sizes[concepts]):
        NUSWide(root, concepts=concepts).read()


def test_flat_images_are_matched_by_name_then_by_photo_id(tmp_path: Path) -> None:
    root = write_nuswide(tmp_path, images="flat")
    assert numbers_of(read(root).images) == [0, 2, 3, 4]
    (root / "Flickr" / "0001_333.jpg").rename(root / "Flickr" / "333.jpg")
    (root / "Flickr" / "0002_111.jpg").unlink()  # the other row of the photo id has the same photograph
    (root / "Flickr").rename(root / "images")
    assert numbers_of(read(root).images) == [0, 2, 0, 4]
    (root / "images").rename(tmp_path / "pixels")
    assert read(root).images is None
    assert numbers_of(read(root, images=tmp_path / "pixels").images) == [0, 2, 0, 4]


def test_a_path_on_two_rows_gives_two_ids(tmp_path: Path) -> None:
    paths = [*NUSWIDE_PATHS[:3], NUSWIDE_PATHS[0], NUSWIDE_PATHS[4]]
    assert read(write_nuswide(tmp_path, paths)).image_ids[2] == "actor/0001_111.jpg#4"


LABELS, TAGS = "Groundtruth/AllLabels/Labels_sky.txt", "NUS_WID_Tags"
WRONG: Cases = {
    "too few labels": (lines(LABELS, 1, 0, 1, 1), r"Labels_sky\.txt has 4 lines, Imagelist\.txt has 5"),
    "a label of -1130179": (lines(LABELS, 1, 0, 1, -1130179, 0), "line 4: '-1130179' instead of 0 or 1"),
    "labels of bytes": (write(LABELS, b"\xff\n" * 5), r"Labels_sky\.txt"),
    "no labels": (
        remove("Groundtruth/AllLabels/Labels_cow.txt"),
        r"missing: .*cow\.txt; expected a file of labels for",
    ),
    "a concept twice": (lines("ConceptsList/Concepts81.txt", "person", "sky", "sky", "cow"), r"Concepts81\.txt"),
    "no tags": (remove(f"{TAGS}/All_Tags.txt"), r"missing: .*All_Tags\.txt; expected ImageList/Imagelist\.txt"),
    "no image": (remove("Flickr/zebra/0003_444.jpg"), r"1 of 4 images is missing, zebra/0003_444\.jpg"),
    "too many tag rows": (
        lines(f"{TAGS}/AllTags1k.txt", *["0\t0\t0\t"] * 6),
        r"AllTags1k\.txt has 6 lines, Imagelist\.txt has 5",
    ),
    "too few tags in a row": (
        lines(f"{TAGS}/AllTags1k.txt", "0\t0\t0\t", "0\t0\t"),
        r"AllTags1k\.txt, line 2: 2 values instead of 3",
    ),
    "a tag of 2": (lines(f"{TAGS}/AllTags1k.txt", *["1\t0\t2\t"] * 5), r"AllTags1k\.txt"),
    "a tag twice": (lines(f"{TAGS}/TagList1k.txt", "sky", "sky", "zoo"), r"TagList1k\.txt"),
    "too few lines of tags": (
        lines(f"{TAGS}/All_Tags.txt", "111 a"),
        r"All_Tags\.txt has 1 lines, Imagelist\.txt has 5",
    ),
    "tags of other photos": (
        lines(f"{TAGS}/All_Tags.txt", "111 a", "333", "222", "111", "444"),
        "2 rows .* the first in line 2",
    ),
    "a path that is none": (
        lines("ImageList/Imagelist.txt", "actor\\0001_111.jpg", "nothing"),
        r"Imagelist\.txt, line 2: expected folder",
    ),
    "a list of nothing": (lines("ImageList/Imagelist.txt"), "list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_named_in_one_line(case: str, tmp_path: Path) -> None:
    root = write_nuswide(tmp_path)
    (root / "Flickr" / "actor" / "0002_222.jpg").unlink()  # of a row that is not kept
    damage, message = WRONG[case]
    damage(root)
    assert re.search(message, refused(read, root))


def test_one_odd_photo_id_among_many_is_no_error(tmp_path: Path) -> None:
    paths = [f"f\\{row:04d}_{row}.jpg" for row in range(200)]
    root = write_nuswide(tmp_path, paths, [["sky"]] * 200, {"sky": [1] * 200}, images=None)
    tags = root / "NUS_WID_Tags" / "All_Tags.txt"
    tags.write_text(tags.read_text().replace("17 sky\n", "99999 sky\n", 1))
    assert len(read(root).image_ids) == 200
