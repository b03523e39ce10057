"""Markers: functions that TensorFlow's converter keeps whole, so that the graph says what each piece is.

A marker runs as ordinary arithmetic in Keras. In a conversion it becomes one custom op that carries weights, scales and
attributes of the layer as they are; nothing downstream guesses a grid from float weights. Those of a Keras model go
around TensorFlow's converter, by their place in `Trace.constants`; in a SavedModel they are inputs of the op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from subbyte.schemas import PACKED_OPS, ROUNDING, Op

#: What the converter calls a marked layer; a convolution may have any number of groups.
FULLY_CONNECTED = PACKED_OPS[Op.FULLY_CONNECTED]
CONV_2D = PACKED_OPS[Op.CONV_2D]


@dataclass
class Trace:
    """A graph of a model that is traced now, in which what follows from variables alone is known beforehand.

    Attributes:
        converts: for TensorFlow's converter, which gets neither the weights of marked layers nor roundings that int8
            tensors do by themselves; else to be run.
        taps: (layer, output) of every activation quantizer, in order: what is int8 on a device.
        constants: of each marked layer that is converted, what its product takes besides the input.
    """

    converts: bool
    taps: list[tuple[str, tf.Tensor]] = field(default_factory=list)
    constants: list[list[np.ndarray]] = field(default_factory=list)


_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)


@contextmanager
def tracing(converts: bool) -> Iterator[Trace]:
    """What layers called inside leave for the converter; see `Trace`."""
    trace = Trace(converts)
    token = _trace.set(trace)
    try:
        yield trace
    finally:
        _trace.reset(token)


def is_tracing() -> bool:
    """Whether a `Trace` is made, for which variables are what they are now."""
    return _trace.get() is not None


def tap(layer: str, output: tf.Tensor) -> None:
    """Hands an activation quantizer's output to the trace, if there is one."""
    trace = _trace.get()
    if trace is not None:
        trace.taps.append((layer, output))


def choose(
    condition: Callable[[], tf.Tensor], if_true: Callable[[], tf.Tensor], if_false: Callable[[], tf.Tensor]
) -> tf.Tensor:
    """`tf.cond` on what follows from variables alone; a trace has the branch that is taken now."""
    if _trace.get() is None:
        return tf.cond(condition(), if_true, if_false)
    with tf.init_scope():
        is_true = bool(condition())
    with tf.name_scope("cond"):  # as in a SavedModel, which has both: the names end up in the file
        return if_true() if is_true else if_false()


def call_rounding(function: Callable[..., tf.Tensor], x: tf.Tensor, *grid: tf.Tensor | float) -> tf.Tensor:
    """`function(x, *grid)`, marked; in a graph for the converter x, which the int8 tensor behind it rounds."""
    trace = _trace.get()
    converts = trace is not None and trace.converts
    return mark(ROUNDING, (lambda x, *grid: x) if converts else function)(x, *grid)


def call_marked(
    name: str,
    function: Callable[..., tf.Tensor],
    x: tf.Tensor,
    constants: Callable[[], Sequence[tf.Tensor]],
    **attributes: int | str,
) -> tf.Tensor:
    """`function(x, *constants())`, marked; the constants follow from variables alone."""
    trace = _trace.get()
    if trace is None:
        return mark(name, function, **attributes)(x, *constants())
    with tf.init_scope():
        values = constants()
    if not trace.converts:
        return function(x, *values)
    trace.constants.append([value.numpy() for value in values])
    shapes = [value.shape for value in values]

    def stand_in(x: tf.Tensor) -> tf.Tensor:
        """Has the output's shape; the converter never looks inside."""
        return function(x, *map(tf.zeros, shapes))

    return mark(name, stand_in, constants=len(trace.constants) - 1, **attributes)(x)


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
