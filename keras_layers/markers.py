"""Markers: functions that TensorFlow's converter keeps whole, so that the graph says what each piece is.

A marker runs as ordinary arithmetic in Keras. In a conversion it becomes one custom op that carries weights, scales and
attributes of the layer as they are; nothing downstream guesses a grid from float weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import tensorflow as tf

from subbyte.schemas import PACKED_OPS, Op

#: What the converter calls a marked layer; a convolution may have any number of groups.
FULLY_CONNECTED = PACKED_OPS[Op.FULLY_CONNECTED]
CONV_2D = PACKED_OPS[Op.CONV_2D]

_taps: ContextVar[list[tuple[str, tf.Tensor]] | None] = ContextVar("taps", default=None)


@contextmanager
def taps() -> Iterator[list[tuple[str, tf.Tensor]]]:
    """Collects (layer, output) of every activation quantizer called inside, in order: what is int8 on a device."""
    collected: list[tuple[str, tf.Tensor]] = []
    token = _taps.set(collected)
    try:
        yield collected
    finally:
        _taps.reset(token)


def tap(layer: str, output: tf.Tensor) -> None:
    """Hands an activation quantizer's output to whoever collects `taps`."""
    collected = _taps.get()
    if collected is not None:
        collected.append((layer, output))


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
