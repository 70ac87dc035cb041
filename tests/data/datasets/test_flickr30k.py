from pathlib import Path

import pytest
from layouts import numbers_of, write_image, write_lines

from itmbench.data.datasets import Flickr30KTokens
from itmbench.errors import InputError


def write_tokens(root: Path) -> Path:
    lines = [f"{image}.jpg#{k}\tImage {image}, caption {k}." for image in (7, 3, 9, 5) for k in range(2)]
    write_lines(root / "results_20130124.token", [*lines, "9.jpg#2\tone\u2028two\x0cthree"])
    write_lines(root / "train.txt", ["9"])
    write_lines(root / "val.txt", ["3.jpg"], "\r\n")
    write_lines(root / "test.txt", ["7", ""])
    for image in (3, 7, 9):
        write_image(root / "flickr30k-images" / f"{image}.jpg", image)
    return root


def test_flickr30k_tokens(tmp_path: Path) -> None:
    corpus = Flickr30KTokens(write_tokens(tmp_path)).read()
    assert list(corpus.image_ids) == ["7.jpg", "3.jpg", "9.jpg"]  # 5 is in no list
    assert list(corpus.text_ids) == ["7.jpg#0", "7.jpg#1", "3.jpg#0", "3.jpg#1", "9.jpg#0", "9.jpg#1", "9.jpg#2"]
    assert corpus.texts[3] == "Image 3, caption 1."
    assert corpus.texts[6] == "one\u2028two\x0cthree"  # not the ends of lines
    assert corpus.text_to_image.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert (corpus.train.tolist(), corpus.stages["val"].queries.tolist()) == ([2], [1])
    assert corpus.stages["test"].gallery.tolist() == [0]
    assert numbers_of(corpus.images) == [7, 3, 9]
    images = corpus.counts[0]
    assert (images.what, images.found, images.published) == ("images", 3, 31_014)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("val.txt", "7", r"test\.txt, line 1: 7\.jpg is already in val\.txt"),
        ("val.txt", "8", r"no caption of 8\.jpg, which val\.txt lists"),
        ("results_20130124.token", "7.jpg#2 no tab", r"token, line 10: expected"),
        ("results_20130124.token", "7.jpg#2\t ", r"token, line 10: expected"),
        ("results_20130124.token", "7.jpg#1\tagain", "'7.jpg#1' occurs twice"),
        ("val.txt", None, r"missing: .*val\.txt; expected results_20130124\.token"),
    ],
)
def test_wrong_token_files_are_named(tmp_path: Path, name: str, line: str | None, message: str) -> None:
    root = write_tokens(tmp_path)
    if line is None:
        (root / name).unlink()
    else:
        with (root / name).open("a", encoding="utf-8") as opened:
            opened.write(f"{line}\n")
    with pytest.raises(InputError, match=message):
        Flickr30KTokens(root).read()
