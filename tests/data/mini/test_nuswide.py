from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from itmbench.data.mini.nuswide import concepts, render_nuswide
from itmbench.data.mini.scene import Scene, Thing

ROWS = 400


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "nuswide-mini"
    render_nuswide(root, 1, images=ROWS, repeated=5)
    return root


def lines(path: Path) -> list[str]:
    return path.read_text().removesuffix("\n").split("\n")


def test_files_agree_row_by_row(root: Path) -> None:
    rows = lines(root / "ImageList/Imagelist.txt")
    assert len(rows) == ROWS and all(row.count("\\") == 1 for row in rows)
    paths = [root / "Flickr" / row.replace("\\", "/") for row in rows]
    assert {Image.open(path).convert("RGB").size for path in paths} == {(64, 64)}
    ids = [row.removesuffix(".jpg").split("_")[1] for row in rows]
    tagged = [row.split() for row in lines(root / "NUS_WID_Tags/All_Tags.txt")]
    assert [row[0] for row in tagged] == ids
    vocabulary = lines(root / "NUS_WID_Tags/TagList1k.txt")
    assert len(vocabulary) == len(set(vocabulary)) >= 100
    for row, flags in zip(tagged, lines(root / "NUS_WID_Tags/AllTags1k.txt"), strict=True):
        assert flags == "".join(f"{int(tag in row[1:])}\t" for tag in vocabulary)
    assert any(set(row[1:]) - set(vocabulary) for row in tagged)  # tags outside the list
    assert any(len(row) == 1 for row in tagged)  # rows without tags
    last = dict(zip(ids, paths, strict=True))
    twice = [(path, last[photo_id]) for photo_id, path in zip(ids, paths, strict=True) if path != last[photo_id]]
    assert len(twice) == 5
    assert all(one.read_bytes() == other.read_bytes() and one.parent != other.parent for one, other in twice)


def test_label_statistics(root: Path) -> None:
    names = lines(root / "ConceptsList/Concepts81.txt")
    assert len(names) == len(set(names)) == 54
    files = [root / "Groundtruth/AllLabels" / f"Labels_{name}.txt" for name in names]
    assert set(files) == set((root / "Groundtruth/AllLabels").iterdir())
    multi_hot = np.array([[float(flag) for flag in lines(path)] for path in files]).T
    assert multi_hot.shape == (ROWS, len(names))
    frequent = multi_hot[:, np.argsort(-multi_hot.sum(0), kind="stable")[:21]]
    labelled = frequent[frequent.sum(1) > 0]
    assert 0 < ROWS - len(labelled) < ROWS // 8  # a few rows have none of the 21
    assert 1.5 <= labelled.sum(1).mean() <= 3.5
    assert 0.28 <= (labelled @ labelled.T > 0).mean() <= 0.45  # random chance


def test_concepts_of_a_hand_made_scene() -> None:
    things = Thing("star", "pink", "small", 0, 0), Thing("cross", "blue", "large", 0, 1)
    assert concepts(Scene(things, "plain", "night")) == {"pink_star", "blue_cross", "night"}
    assert concepts(Scene(things[:1], "wavy", "day")) == {"pink_star", "wavy"}
