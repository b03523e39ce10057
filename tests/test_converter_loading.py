"""A file that no interpreter loads is not written: the conversion is refused in one line."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from subbyte.converter import ConversionError, Graph, convert

pytestmark = pytest.mark.once


def concatenated() -> bytes:
    """A dense layer whose two halves are put together again, in int8."""
    weights = (np.arange(-7, 8).repeat(8)[:96].reshape(16, 6) / 8).astype(np.float32)
    module = tf.Module()
    module.call = tf.function(
        lambda x: tf.concat([y := tf.matmul(x, weights), -y], 1), input_signature=[tf.TensorSpec((1, 16), tf.float32)]
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    rng = np.random.default_rng(0)
    converter.representative_dataset = lambda: ([rng.normal(size=(1, 16)).astype(np.float32)] for _ in range(20))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@pytest.mark.parametrize("target", ["packed", "int8", "int4"])
def test_what_does_not_load_is_refused(target):
    """The interpreter alone sees that the axis of the concatenation is none."""
    graph = Graph.read(concatenated())
    assert convert(graph.write(), target=target, io="int8", prefer=None).layers
    concatenation = next(op for op in graph.operators if graph.kind(op) == "CONCATENATION")
    concatenation.builtinOptions.axis = 7
    damaged = graph.write()
    with pytest.raises(RuntimeError):
        Interpreter(model_content=damaged).allocate_tensors()
    with pytest.raises(ConversionError, match="does not load") as refusal:
        convert(damaged, target=target, io="int8", prefer=None)
    assert "\n" not in str(refusal.value)
