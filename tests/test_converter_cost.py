"""What a conversion does stays in proportion to the model: counts of calls, no seconds.

The limits are counts of today's ways through TensorFlow: one more trace or one more serialization of the model for no
good reason makes them fail.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf

from subbyte import converter
from subbyte import keras_layers as ql
from subbyte.converter.conversion import Conversion
from subbyte.converter.graph import Graph
from subbyte.converter.targets import TARGETS
from subbyte.converter.verification import verify

WIDTH = 4


class Watched(tf.keras.layers.Layer):
    """Gives what it gets, and counts its calls: each is a trace of the model, or an eager run."""

    calls: ClassVar[list[bool]] = []

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        self.calls.append(tf.inside_function())
        return inputs


def chain(layers: int) -> tf.keras.Model:
    """Dense layers one behind the other, in stage 2."""
    x = inputs = tf.keras.Input((WIDTH,))
    x = Watched()(ql.QuantInput(4.0)(x))
    for number in range(layers):
        x = ql.ClippedReLU(4.0)(ql.QuantDense(WIDTH, name=f"dense_{number}")(x))
    model = tf.keras.Model(inputs, x)
    ql.set_stage(model, 2)
    return model


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[list[None]]:
    """An entry for each call of a method."""
    found: list[None] = []
    method = getattr(owner, name)
    plain = method.__func__ if isinstance(method, type(Graph.read)) else method
    bind: Callable[[Any], Any] = classmethod if plain is not method else (lambda function: function)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        found.append(None)
        return plain(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, bind(wrapper))
        yield found


def test_a_conversion_traces_the_model_once_and_serializes_it_once_a_target(monkeypatch):
    model, calls = chain(2), Watched.calls
    calls.clear()
    with (
        counted(monkeypatch, tf.saved_model, "save") as saved,
        counted(monkeypatch, tf.lite.TFLiteConverter, "from_saved_model") as converted,
        counted(monkeypatch, Graph, "read") as read,
        counted(monkeypatch, Graph, "write") as written,
    ):
        conversion = Conversion.start(model)
        assert (len(saved), len(converted), len(read), len(written)) == (1, 1, 1, 0)
        conversion.write()
        assert len(written) == len(TARGETS)
    assert calls == [True]
    calls.clear()
    # What Keras gives is traced once more, whatever the number of samples within a batch of 256.
    verify(conversion, np.zeros((5, WIDTH), np.float32))
    assert calls == [True]


def test_weights_go_around_tensorflows_converter():
    """Neither weights nor what computes them from the latent ones: one op for a layer, its input quantized."""
    conversion = Conversion.start(chain(2))
    graph = Graph.read(conversion.source.tflite)
    markers = [op for op in graph.operators if graph.kind(op) == "SubbyteFullyConnected"]
    assert [len(op.inputs) for op in markers] == [1, 1]
    assert max(len(buffer.data) for buffer in graph.model.buffers if buffer.data is not None) < 4 * WIDTH * WIDTH


def lines_run(function: Callable[[], object]) -> int:
    """How many lines of the package's converter run, comprehensions and all: its work, without the clock."""
    folder = converter.__path__[0]
    count: Counter[str] = Counter()

    def trace(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(folder):
            return None
        count[event] += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count["line"]


def test_work_grows_with_the_depth_of_a_model_and_not_with_its_square(monkeypatch):
    """Four times the layers: 4 times the lines that run where work is linear, 16 times where it is quadratic."""
    lifting, writing = [], []
    for layers in (10, 40):
        conversion = Conversion.start(chain(layers))
        with monkeypatch.context() as patch:  # TensorFlow's part is not repeated
            patch.setattr("subbyte.converter.conversion.read_source", lambda model, ready=conversion.source: ready)
            lifting.append(lines_run(lambda: Conversion.start(None)))
        writing.append(lines_run(lambda ready=conversion: ready.tflite("packed")))
    assert lifting[1] < 6 * lifting[0]
    assert writing[1] < 6 * writing[0]
