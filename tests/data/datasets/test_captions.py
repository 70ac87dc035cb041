import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from layouts import karpathy_entries, numbers_of, write_image, write_karpathy, write_lines

from itmbench.data.corpus import Corpus
from itmbench.data.datasets.captions import read_flickr30k_tokens, read_karpathy
from itmbench.errors import InputError

SHARED = Path(os.environ.get("ITMBENCH_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))


def shared(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is absent; set ITMBENCH_SHARED_DATA to the folder of real data")
    return SHARED / name


def found(corpus: Corpus) -> dict[str, tuple[int, int | None]]:
    return {count.what: (count.found, count.published) for count in corpus.counts}


def test_every_caption_belongs_to_its_image_and_split(tmp_path: Path) -> None:
    corpus = read_karpathy(write_karpathy(tmp_path, karpathy_entries()))
    assert corpus.name == "small"
    assert list(corpus.image_ids) == [f"{row}.jpg" for row in range(6)]
    assert list(corpus.text_ids) == [str(i) for i in range(100, 113)]
    assert corpus.texts[4] == "Caption 104."
    assert corpus.text_to_image.tolist() == [0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5]
    assert corpus.train.tolist() == [0, 2]
    assert corpus.stages["val"].queries.tolist() == corpus.stages["val"].gallery.tolist() == [3, 5]
    assert corpus.stages["test"].queries.tolist() == corpus.stages["test"].gallery.tolist() == [1, 4]
    assert numbers_of(corpus.images) == [0, 1, 2, 3, 4, 5]
    assert found(corpus)["captions"] == (13, None)


def test_gzip_reads_the_same(tmp_path: Path) -> None:
    plain = read_karpathy(write_karpathy(tmp_path / "plain", karpathy_entries()))
    packed = write_karpathy(tmp_path / "packed", karpathy_entries())
    source = packed / "dataset_small.json"
    (packed / "dataset_small.json.gz").write_bytes(gzip.compress(source.read_bytes()))
    source.unlink()
    assert read_karpathy(packed).fingerprint == plain.fingerprint


def test_coco_has_folders_and_restval_trains(tmp_path: Path) -> None:
    entries = karpathy_entries()
    for entry in entries:
        entry["filepath"] = "train2014" if entry["split"] == "train" else "val2014"
    entries[3]["split"] = "restval"
    for case, images in (("below", "images"), ("beside", ".")):
        corpus = read_karpathy(write_karpathy(tmp_path / case, entries, images))
        assert corpus.train.tolist() == [0, 2, 3]
        assert numbers_of(corpus.images) == [0, 1, 2, 3, 4, 5]


def test_without_an_image_folder_there_are_texts_only(tmp_path: Path) -> None:
    assert read_karpathy(write_karpathy(tmp_path, karpathy_entries(), images=None)).images is None


def test_images_may_be_elsewhere(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path / "texts", karpathy_entries(), images="../pixels")
    assert read_karpathy(root).images is None
    assert read_karpathy(root, images=tmp_path / "pixels").images is not None
    with pytest.raises(InputError, match="nowhere"):
        read_karpathy(root, images=tmp_path / "nowhere")


def test_tokens_stand_in_for_a_missing_raw_caption(tmp_path: Path) -> None:
    entries = karpathy_entries()
    del entries[0]["sentences"][1]["raw"]
    assert read_karpathy(write_karpathy(tmp_path, entries)).texts[1] == "caption 101"


def test_truth_and_hard_negatives(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    plain = read_karpathy(root)
    assert plain.true_images is None
    assert plain.hard_negatives is None
    (root / "truth.json").write_text(json.dumps({"102": [14, 11], "103": [12]}))
    (root / "hard_negatives.json").write_text(json.dumps([[11, 14], [14, 11]]))
    corpus = read_karpathy(root)
    assert corpus.true_images is not None
    assert corpus.hard_negatives is not None
    assert [rows.tolist() for rows in corpus.true_images[:5]] == [[], [], [1, 4], [2], []]
    assert corpus.hard_negatives.tolist() == [[1, 4], [4, 1]]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("truth.json", {"999": [11]}, "sentid 999"),
        ("truth.json", {"102": [99]}, "imgid 99"),
        ("truth.json", {"102": [14]}, "caption 102 is not listed as true of its own image"),
        ("hard_negatives.json", [[11, 99]], "imgid 99"),
    ],
)
def test_side_files_name_what_exists(tmp_path: Path, file: str, content: Any, message: str) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    (root / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_karpathy(root)


def change(row: int, **fields: Any) -> list[dict[str, Any]]:
    entries = karpathy_entries()
    entries[row].update(fields)
    return entries


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (change(1, split="dev"), "1.jpg is of the unknown split 'dev'"),
        (change(1, filename="0.jpg"), "'0.jpg' occurs twice"),
        (change(1, imgid=10), "imgid occurs twice"),
        (change(1, sentences=[{"raw": "x", "sentid": 100}]), "'100' occurs twice"),
        (change(1, sentences=[{"raw": " ", "sentid": 102}]), "sentid 102 is empty"),
        (change(1, sentences=[{"raw": "x"}]), r"images\[1\].*sentid"),
        (change(1, sentences=None), r"images\[1\]"),
        ([change(0)[0], *change(1, split="train")[1:4]], "no image is of the split test"),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_karpathy(write_karpathy(tmp_path, entries))
    assert "\n" not in str(error.value)


def test_missing_images_are_counted(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    (root / "images" / "2.jpg").unlink()
    (root / "images" / "4.jpg").unlink()
    with pytest.raises(InputError, match=r"2 of 6 images are missing, the first is 2\.jpg"):
        read_karpathy(root)


def test_an_empty_image_file_is_named(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    (root / "images" / "2.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"2\.jpg: the file is empty"):
        read_karpathy(root)


def test_damaged_json_is_located(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    source = root / "dataset_small.json"
    source.write_text('{"images": [\n  {"filename" "0.jpg"}]}')
    with pytest.raises(InputError, match=r"dataset_small\.json, line 2, column 15: not JSON"):
        read_karpathy(root)
    source.write_bytes(b'{"images": [\n"\xe9"]}')
    with pytest.raises(InputError, match=r"line 2: byte 0xe9 is not UTF-8"):
        read_karpathy(root)
    source.write_text("[]")
    with pytest.raises(InputError, match="no list 'images'"):
        read_karpathy(root)
    source.unlink()
    with pytest.raises(InputError, match="found none"):
        read_karpathy(root)
    (root / "dataset_small.json.gz").write_bytes(gzip.compress(b"{}" * 1000)[:-10])
    with pytest.raises(InputError, match="cannot be read"):
        read_karpathy(root)


def write_tokens(root: Path) -> Path:
    lines = [f"{image}.jpg#{k}\tImage {image}, caption {k}." for image in (7, 3, 9, 5) for k in range(2)]
    write_lines(root / "results_20130124.token", lines)
    write_lines(root / "train.txt", ["9"])
    write_lines(root / "val.txt", ["3.jpg"], "\r\n")
    write_lines(root / "test.txt", ["7", ""])
    for image in (3, 7, 9):
        write_image(root / "flickr30k-images" / f"{image}.jpg", image)
    return root


def test_flickr30k_tokens(tmp_path: Path) -> None:
    corpus = read_flickr30k_tokens(write_tokens(tmp_path))
    assert list(corpus.image_ids) == ["7.jpg", "3.jpg", "9.jpg"]  # 5 is in no list
    assert list(corpus.text_ids) == ["7.jpg#0", "7.jpg#1", "3.jpg#0", "3.jpg#1", "9.jpg#0", "9.jpg#1"]
    assert corpus.texts[3] == "Image 3, caption 1."
    assert corpus.text_to_image.tolist() == [0, 0, 1, 1, 2, 2]
    assert (corpus.train.tolist(), corpus.stages["val"].queries.tolist()) == ([2], [1])
    assert corpus.stages["test"].gallery.tolist() == [0]
    assert numbers_of(corpus.images) == [7, 3, 9]
    assert found(corpus)["images"] == (3, 31_014)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("val.txt", "7", r"val\.txt, line 2: 7\.jpg is already in|line 1: 7\.jpg is already in val"),
        ("val.txt", "8", r"no caption of 8\.jpg, which val\.txt lists"),
        ("results_20130124.token", "7.jpg#2 no tab", r"token, line 9: expected"),
        ("results_20130124.token", "7.jpg#2\t ", r"token, line 9: expected"),
        ("results_20130124.token", "7.jpg#1\tagain", "'7.jpg#1' occurs twice"),
    ],
)
def test_bad_token_lines_are_named(tmp_path: Path, file: str, line: str, message: str) -> None:
    root = write_tokens(tmp_path)
    with (root / file).open("a", encoding="utf-8") as opened:
        opened.write(f"{line}\n")
    with pytest.raises(InputError, match=message):
        read_flickr30k_tokens(root)


def test_missing_split_lists_are_named(tmp_path: Path) -> None:
    root = write_tokens(tmp_path)
    (root / "val.txt").unlink()
    with pytest.raises(InputError, match=r"missing: .*val\.txt; expected results_20130124\.token"):
        read_flickr30k_tokens(root)


def test_a_caption_may_hold_characters_that_only_look_like_line_ends(tmp_path: Path) -> None:
    root = write_tokens(tmp_path)
    with (root / "results_20130124.token").open("ab") as file:
        file.write("9.jpg#2\tone\u2028two\x0cthree\n9.jpg#3\tfour\n".encode())
    assert list(read_flickr30k_tokens(root).texts.strings[-2:]) == ["one\u2028two\x0cthree", "four"]  # type: ignore[union-attr]


def test_flickr30k_at_full_size() -> None:
    corpus = read_karpathy(shared("flickr30k"))
    assert corpus.name == "flickr30k"
    assert corpus.images is None
    assert found(corpus) == {
        "images": (31_014, 31_014),
        "captions": (155_070, 155_070),
        "training images": (29_000, 29_000),
        "validation images": (1_014, 1_014),
        "test images": (1_000, 1_000),
    }
    assert all(len(texts) == 5 for texts in corpus.texts_of_image)


def test_flickr8k_with_its_photographs() -> None:
    corpus = read_karpathy(shared("flickr8k"))
    assert corpus.images is not None
    assert len(corpus.images) == 7_000
    assert corpus.images[0].size == (128, 128)  # type: ignore[union-attr]
    assert found(corpus)["training images"] == (5_000, 6_000)  # not the published split, and said so
