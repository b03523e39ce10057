"""The packed layer: `packed_layer.fbs` defines it, `PackedLayer` reads and writes it."""

from .definition import ENUMS, HEADER
from .packed_layer import PackedLayer

__all__ = ["ENUMS", "HEADER", "PackedLayer"]
