"""Convolutions: what the converter writes is what the stock kernels and ours compute, whatever the window."""

from __future__ import annotations

import copy
import functools
import os

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter as StockInterpreter
from ai_edge_litert.interpreter import OpResolverType
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from models import Model
from nets import Linear, Tanh, dense, drawn, keras, layers, ql

from subbyte import kernels
from subbyte.converter import ConversionError, convert
from subbyte.converter.c_source import c_source
from subbyte.converter.conversion import Conversion
from subbyte.converter.flatbuffer import TensorType
from subbyte.converter.graph import Graph
from subbyte.converter.integer_ops import LinearOp
from subbyte.converter.packed_target import packed_layer
from subbyte.converter.targets import TARGETS
from subbyte.converter.verification import verify
from subbyte.kernels import reference
from subbyte.schemas import Geometry, Grid, Op, PackedLayer, Padding


def run(interpreter, x: np.ndarray) -> np.ndarray:
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


# ---- one op


@st.composite
def convolutions(draw):
    """(op, input [B, H, W, C]) with a window that fits."""
    sizes = st.integers(1, 9)
    groups, inputs = draw(st.sampled_from([(1, 1), (1, 2), (1, 3), (1, 17), (2, 2), (3, 1), (5, 1), (18, 1)]))
    height, width, outputs = draw(sizes), draw(sizes), draw(st.integers(1, 6))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    steps = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    strided = draw(st.booleans())
    padding = draw(st.sampled_from([Padding.VALID, Padding.SAME]))
    geometry = Geometry(kernel, steps if strided else (1, 1), (1, 1) if strided else steps, padding, groups)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, geometry.dilation, strict=True)]
    assume(padding == Padding.SAME or (reach[0] <= height and reach[1] <= width))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits, features, channels = draw(st.integers(1, 8)), kernel[0] * kernel[1] * inputs, outputs * groups
    grid = Grid(bits, offset=-(2 ** (bits - 1)))
    # As our layers deploy them: multipliers of 10 bits, the last of them 1.
    multiplier = (2 * rng.integers(256, 512, channels) + 1) * 2.0 ** -draw(st.integers(9, 16))
    op = LinearOp(
        layer="layer",
        inputs=[0],
        outputs=[1],
        weights=grid.offset + rng.integers(0, 1 << bits, (channels, features), dtype=np.int32),
        weight_scale=multiplier.astype(np.float32),
        bias=rng.integers(-500, 500, channels, dtype=np.int32),
        grid=grid,
        op=Op.DEPTHWISE_CONV_2D if inputs == 1 < groups else Op.CONV_2D,
        geometry=geometry,
        clamp=draw(st.sampled_from([(-128, 127), (-30, 127), (-100, 90)])),
    )
    return op, rng.integers(-128, 128, (1, height, width, inputs * groups), dtype=np.int8)


def model_of(op: LinearOp, x: np.ndarray) -> tuple[Graph, np.ndarray]:
    """A model of the op alone, and the codes that it has to give."""
    model = Model()
    for zero_point in (-7, -30):
        model.tensor(x.shape, scale=0.5, zero_point=zero_point)
    graph = Graph.read(model.finish([0], [1]))
    expected = reference.run(packed_layer(graph, op), x)
    graph.tensor(1).shape = np.asarray(expected.shape, np.int32)
    graph.tensor(1).shapeSignature = None
    graph.operators.append(op)
    return graph, expected


def written(graph: Graph, op: LinearOp, target: str) -> bytes:
    graph = copy.deepcopy(graph)
    graph.main.operators = TARGETS[target].write(graph, op)
    graph.prune()
    return graph.write()


def rounded_twice(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """The layer by the rule of the stock convolutions without XNNPACK: the product is rounded, then its shift."""
    significand, exponent = np.frexp(layer.multiplier.astype(np.float64))
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    high = ((reference.sums(layer, x) << left) * np.rint(significand * 2**31).astype(np.int64) + 2**30) >> 31
    codes = np.where(right > 0, (high + ((1 << right) >> 1) - (high < 0)) >> right, high)
    return np.clip(codes + layer.output_zero_point, *layer.clamp).astype(np.int8)


@pytest.mark.once
@settings(deadline=None, max_examples=150)
@given(convolutions())
def test_one_op_gives_what_the_reference_gives(case):
    op, x = case
    graph, expected = model_of(op, x)
    int8 = written(graph, op, "int8")
    np.testing.assert_array_equal(run(StockInterpreter(model_content=int8), x), expected)
    packed = kernels.Interpreter(model_content=written(graph, op, "packed"))
    np.testing.assert_array_equal(run(packed, x), expected)
    without = StockInterpreter(model_content=int8, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    np.testing.assert_array_equal(run(without, x), rounded_twice(packed_layer(graph, op), x))


@pytest.mark.once
@settings(deadline=None, max_examples=60)
@given(convolutions())
def test_stock_4_bit_convolutions_take_what_fits(case):
    op, x = case
    graph, expected = model_of(op, x)
    model = written(graph, op, "int4")
    stored = Graph.read(model)
    kernel_type = stored.tensor(int(stored.operators[0].inputs[1])).type
    assert kernel_type == (TensorType.INT4 if np.ptp([*op.weights.flat, -8, 7]) == 15 else TensorType.INT8)
    outputs = run(StockInterpreter(model_content=model), x)
    # By their older rounding rule.
    assert np.abs(outputs.astype(int) - expected).max() <= 1


# ---- random models


@st.composite
def networks(draw):
    """A function that builds a model of one to three convolutions."""
    rank = draw(st.integers(1, 2))
    conv, depthwise = (
        (ql.QuantConv1D, ql.QuantDepthwiseConv1D) if rank == 1 else (ql.QuantConv2D, ql.QuantDepthwiseConv2D)
    )
    sizes, channels = [draw(st.integers(6, 10)) for _ in range(rank)], draw(st.integers(1, 5))
    plan = []
    for _ in range(draw(st.integers(1, 3))):
        bits = draw(st.integers(1, 8))
        quantizer = draw(st.sampled_from([Tanh, Linear]))(bits)
        grid = draw(st.sampled_from([None, "bin_centre"])) if bits < 8 else None
        arguments = {
            "kernel_quantizer": type(quantizer)(bits, grid),
            "padding": draw(st.sampled_from(["same", "causal"] if rank == 1 else ["same"])),
            "gain": draw(st.sampled_from(["scalar", "channel", None])),
            draw(st.sampled_from(["strides", "dilation_rate"])): draw(st.integers(1, 3)),
        }
        normalized = draw(st.booleans())
        window = tuple(draw(st.integers(1, 5)) for _ in range(rank))
        if draw(st.booleans()):
            plan.append((depthwise, (window,), arguments, normalized))
        else:
            plan.append((conv, (draw(st.integers(1, 7)), window), arguments, normalized))

    def build():
        x = inputs = keras.Input((*sizes, channels), name="x")
        x = ql.QuantInput(4.0)(x)
        for kind, positional, arguments, normalized in plan:
            norm = ql.QuantBatchNormalization(momentum=0.5) if normalized else None
            x = ql.ClippedReLU(4.0)(kind(*positional, normalization=norm, **arguments)(x))
        return keras.Model(inputs, x)

    return drawn(build, seed=draw(st.integers(0, 1000)))


@pytest.mark.once
@settings(deadline=None, max_examples=int(os.environ.get("SUBBYTE_NETS", "8")))
@given(networks())
def test_random_models_give_the_same_codes_everywhere(model):
    conversion = Conversion.start(model)
    ((name, tensor),) = conversion.graph.named("inputs").items()
    rng = np.random.default_rng(0)
    x = rng.choice([0.1, 2.0, 40.0], (6, *[1] * len(model.inputs[0].shape[1:]))) * rng.normal(
        size=(6, *conversion.graph.shape(tensor)[1:])
    )
    comparisons = verify(conversion, {name: x.astype(np.float32)})
    assert {comparison.against for comparison in comparisons} == {"int8 target", "Keras"}
    assert [comparison.differing for comparison in comparisons] == [0] * len(comparisons)


# ---- what does not convert, with the mend in the message


def chain_of(*parts, shape=(9, 8, 3)):
    model = keras.Sequential([keras.Input(shape), *parts])
    ql.set_stage(model, 2)
    return model


def victim(**arguments):
    return ql.QuantConv2D(4, 3, kernel_quantizer=Tanh(4), name="victim", **arguments)


@functools.cache
def packed() -> bytes:
    return convert(chain_of(ql.QuantInput(4.0), victim(), ql.QuantActivation(4.0))).tflite


BAD = {
    "no QuantInput": (
        lambda: chain_of(victim(), ql.QuantActivation(4.0)),
        "layer victim: its input is not quantized; put QuantInput",
    ),
    "no range": (
        lambda: chain_of(ql.QuantInput(4.0), victim(), layers.Flatten(), dense(3, Tanh(4)), ql.QuantActivation(4.0)),
        "layer victim: its output has no range .*put ClippedReLU or QuantActivation",
    ),
    "too many inputs": (
        lambda: chain_of(ql.QuantInput(4.0), victim(), ql.QuantActivation(4.0), shape=(3, 3, 8000)),
        "layer victim does not fit the packed format: 72000 inputs",
    ),
    "16 bits": (
        lambda: chain_of(ql.QuantInput(4.0, bits=16), victim(input_bits=16), ql.QuantActivation(4.0, bits=16)),
        "layer victim: it is a convolution, and 16-bit activations are for dense layers alone: .* 8 bits or fewer",
    ),
    "packed already": (
        packed,
        "packed already: convert the model that it was made from",
    ),
}


@pytest.mark.once
def test_convolutions_do_not_become_c_yet():
    with pytest.raises(ConversionError, match="is a convolution, and firmware has fully connected layers alone"):
        c_source(packed())


@pytest.mark.parametrize("case", BAD)
def test_a_model_that_does_not_convert_says_what_to_mend(case):
    build, message = BAD[case]
    with pytest.raises(ConversionError, match=message) as raised:
        convert(build())
    assert "\n" not in str(raised.value)
