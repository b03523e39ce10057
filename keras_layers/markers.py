"""Markers: functions that TensorFlow's converter keeps whole, so that the graph says what each piece is.

A marker runs as ordinary arithmetic in Keras. In a conversion it becomes one custom op that carries the layer's codes,
scales and attributes as they are; nothing downstream guesses a grid from float weights.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

#: What the converter calls a marked fully connected layer, and what the kernel registers.
FULLY_CONNECTED = "SubbyteFullyConnected"
#: The rounding of an activation quantizer. The converter drops its body: the int8 tensor behind it rounds by itself.
ROUNDING = "SubbyteRounding"


def mark(name: str, function: Callable[..., tf.Tensor], **attributes: int | str) -> Callable[..., tf.Tensor]:
    """`function`, which TensorFlow's converter turns into the custom op `name` with these attributes.

    Only a graph is ever converted, so an eager call runs the plain function.
    """
    parts = [f'name: "{name}"', 'attr { key: "tfl_fusable_op" value { b: true } }']
    for key, value in attributes.items():
        kind, text = ("s", f'"{value}"') if isinstance(value, str) else ("i", str(int(value)))
        parts.append(f'attr {{ key: "{key}" value {{ {kind}: {text} }} }}')
    marked = tf.function(function, experimental_implements=" ".join(parts), autograph=False)
    return lambda *tensors: (marked if tf.inside_function() else function)(*tensors)
