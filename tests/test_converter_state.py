"""What a model in Keras keeps from one call to the next, its file keeps too, by either way into the converter.

The oracle is the model in Keras over a sequence of inputs.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from subbyte import keras_layers as ql
from subbyte import kernels
from subbyte.converter import Graph, convert


class RunningSum(tf.keras.layers.Layer):
    """Half of what it gave last time, and its input."""

    def build(self, input_shape):
        self.past = self.add_weight(shape=(1, input_shape[-1]), trainable=False, initializer="zeros", name="past")

    def call(self, inputs):
        new = 0.5 * self.past + inputs
        self.past.assign(new)
        return new


def network() -> tf.keras.Model:
    """A state of zeros in front of a packed layer; equal weights at each call."""
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((8,), batch_size=1)
    x = ql.QuantDense(3)(ql.QuantInput(4.0)(RunningSum()(inputs)))
    model = tf.keras.Model(inputs, ql.QuantActivation(8.0)(x))
    ql.set_stage(model, 2)
    return model


@pytest.mark.parametrize("route", ["keras", "saved_model"])
@pytest.mark.parametrize("target", ["packed", "int8"])
def test_state_goes_on_from_call_to_call(route, target, tmp_path):
    source = network()
    if route == "saved_model":
        source.export(str(tmp_path / "saved"))
        source = tmp_path / "saved"
    tflite = convert(source, target=target).tflite
    graph = Graph.read(tflite)
    assert "ASSIGN_VARIABLE" in map(graph.kind, graph.operators)
    interpreter = kernels.Interpreter(model_content=tflite) if target == "packed" else Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    in_keras, found, expected = network(), [], []
    for step in np.random.default_rng(0).normal(size=(12, 1, 8)).astype(np.float32):
        interpreter.set_tensor(x["index"], step)
        interpreter.invoke()
        found.append(interpreter.get_tensor(y["index"]).copy())
        expected.append(np.asarray(in_keras(step)))
    np.testing.assert_array_equal(found, expected)
    assert np.any(np.asarray(network()(step)) != expected[-1])  # without a past it is another


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_stateful_recurrent_layer_remembers(kind):
    """The recurrent layer stays in float, where another order of its sums may move an output by one step."""
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((2, 8), batch_size=1)
    recurrent = getattr(tf.keras.layers, kind)(6, stateful=True)
    x = ql.QuantDense(3)(ql.QuantInput(1.0)(recurrent(inputs)))
    model = tf.keras.Model(inputs, ql.QuantActivation(2.0)(x))
    ql.set_stage(model, 2)
    interpreter = kernels.Interpreter(model_content=convert(model).tflite)
    interpreter.allocate_tensors()
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    found, expected = [], []
    for step in np.random.default_rng(0).normal(size=(12, 1, 2, 8)).astype(np.float32):
        interpreter.set_tensor(x["index"], step)
        interpreter.invoke()
        found.append(interpreter.get_tensor(y["index"]).copy())
        expected.append(np.asarray(model(step)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2.0 / 128)
    # Keras 3 and tf-keras call it by two names.
    getattr(recurrent, "reset_state", getattr(recurrent, "reset_states", None))()
    assert np.abs(np.asarray(model(step)) - expected[-1]).max() > 3 * 2.0 / 128  # without a past it is another
