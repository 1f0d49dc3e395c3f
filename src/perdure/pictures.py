"""Pictures as every reader of them opens them: RGB, upright, of a size that fits into memory."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image

PIXEL_LIMIT = 50_000_000
"""Pixels of a picture at most: 150 MB in RGB."""
_DEEP = {"I": "whole numbers of 32 bits", "F": "decimal numbers"}


def open_picture(handle: Path | bytes) -> "Image.Image":
    """The picture in a file, or in the bytes of one: RGB, turned upright as its camera noted.

    Raises:
        RequestError: It cannot be read, it has too many pixels, or what is black and white in it is not known.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = handle_name(handle)
    try:
        with Image.open(io.BytesIO(handle) if isinstance(handle, bytes) else handle) as picture:
            _check_size(picture, name)
            return in_rgb(ImageOps.exif_transpose(picture), name)
    except RequestError:
        raise
    except UnidentifiedImageError as error:  # whose message names a place in memory
        raise RequestError(f"{name} cannot be read as a picture: its format is not known") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
        raise RequestError(f"{name} cannot be read as a picture: {str(error)[:200]}") from error


def in_rgb(picture: "Image.Image", name: str) -> "Image.Image":
    """A picture in RGB, whatever it was; 16 bits of grey become 8.

    Raises:
        RequestError: Its numbers have no known black and white.
    """
    import numpy as np
    from PIL import Image

    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
    elif picture.mode in _DEEP:
        raise RequestError(
            f"{name} cannot be read as a picture: it holds {_DEEP[picture.mode]}, and nothing says which of them are "
            "black and white; save it with 8 or 16 bits a channel"
        )
    return picture.convert("RGB")


def handle_name(handle: Path | bytes) -> str:
    """What messages call a picture."""
    return "what a data set holds" if isinstance(handle, bytes) else str(handle)


def _check_size(picture: "Image.Image", name: str) -> None:
    width, height = picture.size
    if width * height > PIXEL_LIMIT:
        raise RequestError(
            f"{name} cannot be read as a picture: it has {width} by {height} pixels; at most {PIXEL_LIMIT:,} in all "
            "are allowed. Make it smaller"
        )
