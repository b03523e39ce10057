"""The reference convolutions against TensorFlow's, in float64 on integers, where nothing is rounded."""

import numpy as np
import pytest
import tensorflow as tf
from models import random_layer

from subbyte.kernels import reference
from subbyte.schemas import Geometry, Op, Padding

PADDINGS = {Padding.VALID: "VALID", Padding.SAME: "SAME"}

#: (input [H, W, C], output channels, kernel, stride, dilation, groups)
CONVOLUTIONS = [
    ((7, 9, 3), 5, (1, 1), (1, 1), (1, 1), 1),
    ((7, 9, 3), 5, (3, 3), (1, 1), (1, 1), 1),
    ((8, 9, 2), 4, (3, 2), (2, 3), (1, 1), 1),
    ((1, 12, 5), 7, (1, 9), (1, 2), (1, 1), 1),
    ((9, 11, 4), 3, (2, 3), (1, 1), (3, 2), 1),
    ((6, 6, 6), 9, (3, 3), (1, 1), (1, 1), 3),
    ((5, 4, 3), 2, (1, 1), (3, 3), (1, 1), 1),
]

#: (input [H, W, C], multiplier, kernel, stride, dilation); TensorFlow takes only equal strides here.
DEPTHWISE = [
    ((7, 9, 3), 1, (3, 3), (1, 1), (1, 1)),
    ((7, 9, 5), 2, (3, 3), (2, 2), (1, 1)),
    ((8, 5, 1), 4, (1, 3), (1, 1), (1, 1)),
    ((9, 12, 3), 1, (2, 3), (1, 1), (2, 3)),
    ((1, 12, 4), 1, (1, 9), (3, 3), (1, 1)),
]


def random_convolution(op, features, channels, **geometry):
    rng = np.random.default_rng([op, features, channels])
    layer = random_layer(
        rng,
        features,
        channels,
        op=op,
        geometry=Geometry(**geometry),
        input_zero_point=-37,
        output_zero_point=5,
        clamp=(-120, 101),
    )
    return layer, rng


def expected(layer, sums):
    """`sums` of weights and x - zero point, as int8 codes."""
    bias = layer.bias + layer.input_zero_point * layer.weights.sum(axis=1)  # without the zero point's share
    scaled = (sums + bias).astype(np.float32) * layer.multiplier
    return np.clip(np.rint(scaled) + layer.output_zero_point, *layer.clamp).astype(np.int8)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("shape", "channels", "kernel", "stride", "dilation", "groups"), CONVOLUTIONS)
def test_convolution(shape, channels, kernel, stride, dilation, groups, padding):
    inputs = shape[-1] // groups
    layer, rng = random_convolution(
        Op.CONV_2D, kernel[0] * kernel[1] * inputs, channels,
        kernel=kernel, stride=stride, dilation=dilation, groups=groups, padding=padding,
    )  # fmt: skip
    x = rng.integers(-128, 128, (2, *shape)).astype(np.int8)
    weights = layer.weights.reshape(channels, *kernel, inputs).transpose(1, 2, 3, 0).astype(np.float64)
    centred = np.split(x.astype(np.float64) - layer.input_zero_point, groups, axis=-1)
    # One group at a time: TensorFlow's float64 convolution knows no groups on every processor.
    sums = [
        tf.nn.conv2d(part, kernel_part, stride, PADDINGS[padding], dilations=dilation)
        for part, kernel_part in zip(centred, np.split(weights, groups, axis=-1), strict=True)
    ]
    outputs = reference.run(layer, x)
    assert len(np.unique(outputs)) > 10
    np.testing.assert_array_equal(outputs, expected(layer, np.concatenate(sums, axis=-1)))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("shape", "multiplier", "kernel", "stride", "dilation"), DEPTHWISE)
def test_depthwise_convolution(shape, multiplier, kernel, stride, dilation, padding):
    channels = shape[-1] * multiplier
    layer, rng = random_convolution(
        Op.DEPTHWISE_CONV_2D, kernel[0] * kernel[1], channels,
        kernel=kernel, stride=stride, dilation=dilation, groups=shape[-1], padding=padding,
    )  # fmt: skip
    x = rng.integers(-128, 128, (2, *shape)).astype(np.int8)
    weights = layer.weights.reshape(shape[-1], multiplier, *kernel).transpose(2, 3, 0, 1).astype(np.float64)
    sums = tf.nn.depthwise_conv2d(
        x.astype(np.float64) - layer.input_zero_point, weights, (1, *stride, 1), PADDINGS[padding], dilations=dilation
    )
    outputs = reference.run(layer, x)
    assert len(np.unique(outputs)) > 10
    np.testing.assert_array_equal(outputs, expected(layer, sums.numpy()))


def test_a_layer_says_which_function_runs_it():
    rng = np.random.default_rng(0)
    layer = random_layer(rng, 12, 5)
    x = rng.integers(-128, 128, (3, 12)).astype(np.int8)
    np.testing.assert_array_equal(reference.run(layer, x), reference.fully_connected(layer, x))
