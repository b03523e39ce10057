"""The ops that layers are, and their names in a TFLite file: the one list of them in Python.

The C kernels repeat it in `kernels/include/subbyte_op.h`, and a test holds the two equal.
"""

from __future__ import annotations

from .definition import ENUMS

Op = ENUMS["Op"]

#: The custom ops that the kernels register, by the kind of layer.
PACKED_OPS = {
    Op.FULLY_CONNECTED: "SubbyteFullyConnected",
    Op.CONV_2D: "SubbyteConv2D",
    Op.DEPTHWISE_CONV_2D: "SubbyteDepthwiseConv2D",
}
#: The stock ops in whose place they stand.
STOCK_OPS = {op: op.name for op in PACKED_OPS}

#: What marks the rounding of an activation quantizer while TensorFlow converts a model. It stands in no file.
ROUNDING = "SubbyteRounding"
