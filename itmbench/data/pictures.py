"""Picture files and PIL images of any kind -> upright 8-bit RGB pictures."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from itmbench.errors import InputError

LARGE = 1024
"""Sides, in pixels, that a JPEG file keeps when it is decoded at a half, a quarter or an eighth of its size."""
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def read_picture(path: Path) -> Image.Image:
    """Decode a picture file and convert it by `to_rgb`; of an animation, the first frame.

    A JPEG file of at least twice ``LARGE`` on both sides is decoded at a smaller size, several times as fast.

    Raises:
        InputError: the file is missing, is not a readable picture, is larger than Pillow's limit of about 179 million
            pixels, or has pixels that `to_rgb` refuses.
    """
    try:
        with Image.open(path) as image:
            image.draft(None, (LARGE, LARGE))
            return to_rgb(image)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; restore the file or name another image folder") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels ({error}); make the picture smaller") from None
    except Exception as error:  # every decoder raises its own on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: not a readable image ({reason}); replace the file with a good copy") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture to 8-bit RGB as a viewer would show it.

    EXIF orientation is applied, transparent pixels are laid over white, and 16-bit grey is scaled to 8 bits.

    Raises:
        InputError: the range of the pixel values is unknown (32-bit integers, floats) or the colours are CIELAB.
    """
    if image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format == "PPM"):  # Pillow scales PGM to 16 bits
        grey = np.asarray(image).astype(np.float64) / 257
        eight_bit = Image.fromarray(np.rint(grey).astype(np.uint8))
        eight_bit.getexif().update(image.getexif())
        image = eight_bit
    elif image.mode in ("I", "F", "LAB"):
        kind = {"I": "32-bit integer pixels", "F": "float pixels", "LAB": "CIELAB pixels"}[image.mode]
        raise InputError(f"{kind}, which have no fixed range; convert the picture to 8 or 16 bits a channel")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return upright.convert("RGB")
