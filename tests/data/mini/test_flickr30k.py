import json
from pathlib import Path
from typing import Any

import pytest
from mini_reading import read, true_of
from PIL import Image

from itmbench.data.mini.flickr30k import plan_flickr30k, render_flickr30k

SIZES: dict[str, int] = {"train": 30, "val": 4, "test": 12}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "flickr30k-mini"
    render_flickr30k(root, 3, **SIZES)
    return root


@pytest.fixture(scope="module")
def images(root: Path) -> list[dict[str, Any]]:
    return json.loads((root / "dataset_flickr30k.json").read_text())["images"]


def test_entries_have_the_genuine_schema(images: list[dict[str, Any]]) -> None:
    assert [image["split"] for image in images] == ["train"] * 30 + ["val"] * 16 + ["test"] * 48
    assert [image["imgid"] for image in images] == list(range(94))
    sentences = [sentence for image in images for sentence in image["sentences"]]
    assert [sentence["sentid"] for sentence in sentences] == list(range(5 * 94))
    for image in images:
        assert set(image) == {"filename", "imgid", "split", "sentids", "sentences"}
        assert image["sentids"] == [sentence["sentid"] for sentence in image["sentences"]]
        for sentence in image["sentences"]:
            assert set(sentence) == {"raw", "tokens", "sentid", "imgid"}
            assert sentence["imgid"] == image["imgid"]
            assert sentence["raw"].lower().replace(",", "").split() == [*sentence["tokens"], "."]


def test_every_listed_image_exists_and_decodes(root: Path, images: list[dict[str, Any]], tmp_path: Path) -> None:
    files = sorted((root / "flickr30k-images").iterdir())
    assert [path.name for path in files] == [image["filename"] for image in images]
    assert {Image.open(path).convert("RGB").size for path in files} == {(64, 64)}
    render_flickr30k(tmp_path, train=1, val=0, test=0, pixels=96)
    assert Image.open(tmp_path / "flickr30k-images" / "00000001.jpg").size == (96, 96)


def test_truth_file_equals_captions_read_against_scenes(root: Path, images: list[dict[str, Any]]) -> None:
    truth = json.loads((root / "truth.json").read_text())
    photos, _ = plan_flickr30k(3, **SIZES)
    evaluated = [image for image in images if image["split"] != "train"]
    assert set(truth) == {str(sentid) for image in evaluated for sentid in image["sentids"]}
    for image in evaluated:
        rivals = [other["imgid"] for other in evaluated if other["split"] == image["split"]]
        for sentence in image["sentences"]:
            meaning = read(" ".join(sentence["raw"].lower().split(" ")[:-1]))
            expected = [imgid for imgid in rivals if true_of(meaning, photos[imgid].scene)]
            assert truth[str(sentence["sentid"])] == expected
            assert image["imgid"] in expected


def test_hard_negatives_go_both_ways_and_can_be_told_apart_by_reading(root: Path, images: list[dict[str, Any]]) -> None:
    truth = json.loads((root / "truth.json").read_text())
    pairs = [tuple(pair) for pair in json.loads((root / "hard_negatives.json").read_text())]
    assert len(pairs) == len(set(pairs)) == 2 * 3 * 16
    for imgid, twin in pairs:
        assert (twin, imgid) in pairs
        assert images[imgid]["split"] == images[twin]["split"] != "train"
        assert any(twin not in truth[str(sentid)] for sentid in images[imgid]["sentids"])
