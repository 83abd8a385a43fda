"""Pictures: decoded by Pillow if they have the format, size and depth of a dataset."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.dataset import DataError
from data.files import reading


def decode(
    path: Path, content: bytes, shape: tuple[int, int, int], formats: list[str]
) -> tuple[np.ndarray, Image.Image]:
    """Returns the pixels of a file of one of these formats, uint8 of this shape, and Pillow's image.

    Raises `DataError`, which names `path`, for anything else. The size is compared before pixels are decoded.
    """
    height, width, channels = shape
    with reading(path):
        try:
            image = Image.open(BytesIO(content), formats=formats)
        except UnidentifiedImageError:
            raise DataError(f"{path} is no {' or '.join(formats)} file") from None
        if image.size != (width, height):
            raise DataError(f"{path} has {image.width} x {image.height} pixels, not {width} x {height}")
        # Pillow clips 16 bits to 8; byte 24 of a PNG file tells.
        if image.format == "PNG" and content[24] > 8:
            raise DataError(f"{path} has {content[24]} bits per channel; pictures must have 8 or fewer")
        return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(shape), image
