"""Every kind of picture file gives the right pixels, or one line that names the file."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from itmbench.data.pictures import read_picture, to_rgb
from itmbench.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore:Image size")

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)
ALPHA = np.where(RAMP > 128, 255, 0).astype(np.uint8)


def pixels(path: Path) -> NDArray[Any]:
    picture = read_picture(path)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def png(side: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A square PNG file, written by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tif", "a.gif", "a.jp2", "a.ppm"])
def test_eight_bit_grey_and_colour(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    grey = pixels(save(Image.fromarray(RAMP), tmp_path / f"grey-{name}", **options))
    assert np.array_equal(grey, np.repeat(RAMP[:, :, None], 3, axis=2))
    if not name.endswith("gif"):
        assert np.array_equal(pixels(save(Image.fromarray(COLOURS), tmp_path / name, **options)), COLOURS)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_png_agrees_with_another_decoder(tmp_path: Path, mode: str) -> None:
    path = save(Image.fromarray(COLOURS).convert(mode), tmp_path / "a.png")
    other = decode_image(str(path), ImageReadMode.RGB).permute(1, 2, 0)
    assert torch.equal(torch.from_numpy(pixels(path)), other.long())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_agrees_with_another_decoder(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide = np.kron(COLOURS[:4], np.ones((8, 8, 1), np.uint8))
    path = save(Image.fromarray(wide), tmp_path / "a.jpg", exif=exif, quality=95)
    other = decode_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True).permute(1, 2, 0).numpy()
    ours = pixels(path)
    assert ours.shape == other.shape == ((64, 32, 3) if orientation > 4 else (32, 64, 3))
    assert np.abs(ours - other).max() <= 2


@pytest.mark.parametrize(("height", "scale"), [(2047, 1), (2048, 2), (4100, 4)])
def test_a_large_jpeg_is_decoded_at_a_smaller_size(tmp_path: Path, height: int, scale: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    ramp = Image.fromarray(COLOURS).resize((height + 100, height), Image.Resampling.BICUBIC)
    path = save(ramp, tmp_path / "a.jpg", exif=exif, quality=95)
    whole = decode_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True).float()
    side = torch.tensor(whole.shape[1:]) // scale * scale
    expected = torch.nn.functional.avg_pool2d(whole[:, : side[0], : side[1]], scale).permute(1, 2, 0).numpy()
    ours = pixels(path)[: expected.shape[0], : expected.shape[1]]
    assert ours.shape == expected.shape and np.abs(ours - expected).max() <= 3


def test_transparent_pixels_lie_over_white(tmp_path: Path) -> None:
    expected = np.where(ALPHA[:, :, None] == 255, COLOURS, 255)
    rgba = Image.fromarray(np.dstack([COLOURS, ALPHA]))
    assert np.array_equal(pixels(save(rgba, tmp_path / "a.png")), expected)
    grey = Image.fromarray(np.dstack([RAMP, ALPHA]), "LA")
    assert np.array_equal(pixels(save(grey, tmp_path / "b.png"))[..., 0], np.where(ALPHA == 255, RAMP, 255))
    palette = Image.fromarray(RAMP // 128).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    transparent = pixels(save(palette, tmp_path / "c.png", transparency=0))
    assert np.array_equal(transparent, np.where((RAMP >= 128)[:, :, None], [40, 50, 60], 255))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, name: str) -> None:
    deep = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    expected = np.rint(deep / 65535 * 255)
    assert np.array_equal(pixels(save(Image.fromarray(deep), tmp_path / name))[..., 1], expected)


@pytest.mark.parametrize("levels", [1023, 65535])
def test_deep_pgm_is_scaled_by_its_own_range(tmp_path: Path, levels: int) -> None:
    deep = np.linspace(0, levels, 64).astype(">u2").reshape(8, 8)
    path = tmp_path / "a.pgm"
    path.write_bytes(f"P5 8 8 {levels}\n".encode() + deep.tobytes())
    assert np.abs(pixels(path)[..., 0] - deep.astype(int) / levels * 255).max() <= 0.51


def test_sixteen_bit_colour_png(tmp_path: Path) -> None:
    deep = COLOURS.astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in deep)

    path = tmp_path / "a.png"
    path.write_bytes(png(8, 16, colour=2, rows=rows))
    assert np.array_equal(pixels(path), COLOURS)


@pytest.mark.parametrize(("mode", "tolerance"), [("CMYK", 12), ("YCbCr", 12)])
def test_other_colour_spaces_of_jpeg(tmp_path: Path, mode: str, tolerance: int) -> None:
    flat = np.full((16, 16, 3), (200, 60, 30), np.uint8)
    path = save(Image.fromarray(flat).convert(mode), tmp_path / "a.jpg", quality=95)
    assert np.abs(pixels(path) - flat).max() <= tolerance


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (40, 200)]
    path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (pixels(path) == 40).all()


@pytest.mark.parametrize(
    ("array", "what"), [(RAMP.astype(np.float32) / 255, "float pixels"), (RAMP.astype(np.int32), "32-bit integer")]
)
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, array: NDArray[Any], what: str) -> None:
    path = save(Image.fromarray(array), tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"^.*a\.tif: {what}.*8 or 16 bits a channel$"):
        read_picture(path)
    with pytest.raises(InputError, match=f"^{what}"):
        to_rgb(Image.open(path))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.gif", "a.jp2", "a.avif", "a.bmp", "a.qoi"])
def test_damaged_files_give_a_picture_or_one_line(tmp_path: Path, name: str) -> None:
    whole = save(Image.fromarray(np.kron(COLOURS, np.ones((8, 8, 1), np.uint8))), tmp_path / name).read_bytes()
    generator = np.random.default_rng(0)
    messages = []
    for trial in range(60):
        content = bytearray(whole[: generator.integers(1, len(whole))] if trial % 2 else whole)
        for place in generator.integers(0, len(content), trial // 4):
            content[place] ^= 1 << generator.integers(0, 8)
        (tmp_path / name).write_bytes(content)
        try:
            assert read_picture(tmp_path / name).mode == "RGB"
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(name in message and "\n" not in message for message in messages)


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(60_000, 8, colour=0, rows=b""))
    with pytest.raises(InputError, match=r"bomb\.png: too many pixels"):
        read_picture(path)


def test_a_link_to_itself_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        read_picture(tmp_path / "a.png")
