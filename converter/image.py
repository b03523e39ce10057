"""A packed `.tflite` as one binary image, for a partition of flash that is written apart from the program.

The layers stand one behind the other, each at a multiple of 64 bytes; their headers say how long they are.
`subbyte_find_layers()` finds them where the image lies.
"""

from __future__ import annotations

from .chain import read_chain
from .errors import ConversionError
from .flatbuffer import BUFFER_ALIGNMENT


def image(tflite: bytes) -> bytes:
    """Writes a packed model as an image.

    Args:
        tflite: as for `c_source`, with layers that take one row each.

    Raises:
        ConversionError: the model is no such chain.
    """
    data = b""
    for layer in read_chain(tflite):
        if layer.rows != 1:
            raise ConversionError(
                f"{layer.name} takes {layer.rows} rows, and an image has layers of one: use --format=c"
            )
        data += bytes(-len(data) % BUFFER_ALIGNMENT) + layer.packed
    return data
