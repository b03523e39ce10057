"""The vocabulary of the packed layer: grids of weights, records of channels, names of ops, and the layer itself.

`packed_layer.fbs` defines the bytes, `PackedLayer` reads and writes them; numpy is all that it needs.
"""

from .definition import ENUMS, HEADER
from .first_last import first_and_last
from .grid import Grid
from .header import MAGIC, MAX_FEATURES, VERSION, ActivationType, BiasType, Decode, MultiplierType, Padding, read_header
from .ops import PACKED_OPS, ROUNDING, STOCK_OPS, Op
from .packed_layer import Geometry, PackedLayer, split_bias
from .planes import PLANE_WIDTHS, pack_planes, plane_bytes, unpack_planes
from .records import record_bytes

__all__ = [
    "ENUMS",
    "HEADER",
    "MAGIC",
    "MAX_FEATURES",
    "PACKED_OPS",
    "PLANE_WIDTHS",
    "ROUNDING",
    "STOCK_OPS",
    "VERSION",
    "ActivationType",
    "BiasType",
    "Decode",
    "Geometry",
    "Grid",
    "MultiplierType",
    "Op",
    "PackedLayer",
    "Padding",
    "first_and_last",
    "pack_planes",
    "plane_bytes",
    "read_header",
    "record_bytes",
    "split_bias",
    "unpack_planes",
]
