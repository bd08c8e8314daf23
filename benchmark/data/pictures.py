"""Encoded pictures (PNG, JPEG) to pixels, without trusting what they say of themselves."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from corobench.benchmark.errors import DatasetError
from corobench.benchmark.tracks import Track

#: Largest encoded picture that is opened; a track's images are a few kilobytes.
MAX_PICTURE_BYTES = 256 * 1024
FORMATS = ("PNG", "JPEG")
MODES = {1: "L", 3: "RGB"}


def decode(content: bytes, track: Track, where: str) -> NDArray[np.uint8]:
    """The pixels of one encoded picture.

    Size and mode are read from the header and compared first, so that no pixel of a picture
    that does not fit is ever decompressed.

    Args:
        content: a PNG or JPEG file.
        track: whose shape is expected: greyscale for one channel, RGB for three.
        where: file, and row, to name in errors.

    Returns:
        uint8 (C, H, W).

    Raises:
        DatasetError: no such picture, another size or mode, or a broken file.
    """
    channels, height, width = track.shape
    if len(content) > MAX_PICTURE_BYTES:
        raise DatasetError(
            f"{where}: expected a picture of at most {MAX_PICTURE_BYTES} bytes, "
            f"but found {len(content)}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                expected = f"a {width}x{height} picture of mode {MODES[channels]}"
                if picture.size != (width, height) or picture.mode != MODES[channels]:
                    found = f"{picture.size[0]}x{picture.size[1]} of mode {picture.mode}"
                    raise DatasetError(
                        f"{where}: expected {expected} (track {track.name}), but found {found}"
                    )
                pixels = np.asarray(picture, dtype=np.uint8)
    except UnidentifiedImageError as error:
        raise DatasetError(
            f"{where}: expected a PNG or JPEG picture, but found something else"
        ) from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise DatasetError(
            f"{where}: expected a complete picture, but found a broken one ({error})"
        ) from error
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)
