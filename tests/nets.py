"""Small Keras models in stage 2, one for each thing that conversions meet; random weights and statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from subbyte import keras_layers as ql

keras = tf.keras
layers = tf.keras.layers
Tanh, Linear = ql.quantizers.Tanh, ql.quantizers.Linear

NETS: dict[str, Callable[[], keras.Model]] = {}
#: Those of `NETS` with convolutions, and those with 16-bit activations.
CONVOLUTIONAL: list[str] = []
SIXTEEN_BITS: list[str] = []


def net(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    NETS[build.__name__] = build
    return build


def convolutional(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    CONVOLUTIONAL.append(build.__name__)
    return net(build)


def sixteen_bits(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    SIXTEEN_BITS.append(build.__name__)
    return net(build)


def ready(name: str, seed: int = 0) -> keras.Model:
    """The net of that name, weights and moving statistics drawn, in stage 2."""
    return drawn(NETS[name], seed)


def drawn(build: Callable[[], keras.Model], seed: int) -> keras.Model:
    """What `build` builds, weights and moving statistics drawn, in stage 2."""
    keras.utils.set_random_seed(seed)
    model = build()
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=(64, *x.shape[1:])).astype(np.float32) for x in model.inputs]
    for _ in range(3):
        model(inputs[0] if len(inputs) == 1 else inputs, training=True)
    for variable in model.trainable_variables:
        name = getattr(variable, "path", variable.name)
        if any(part in name for part in ("bias", "beta", "gamma")):
            variable.assign(variable + 0.3 * rng.normal(size=variable.shape).astype(np.float32))
    ql.set_stage(model, 2)
    return model


def small_net(stage: int = 2, width: int = 8) -> keras.Model:
    """Two layers, input "features", in a stage, `width` units between them."""
    keras.utils.set_random_seed(0)
    parts = [ql.QuantInput(4.0), dense(width, Tanh(4)), ql.ClippedReLU(4.0), dense(3, Tanh(2)), ql.QuantActivation(8.0)]
    model = keras.Sequential([keras.Input((10,), name="features"), *parts])
    ql.set_stage(model, stage)
    return model


def dense(
    units: int, quantizer: ql.quantizers.Quantizer, normalized: bool = True, **arguments: object
) -> ql.QuantDense:
    normalization = ql.QuantBatchNormalization(momentum=0.5) if normalized else None
    return ql.QuantDense(units, kernel_quantizer=quantizer, normalization=normalization, **arguments)


@net
def paper_like() -> keras.Model:
    """Every width once, odd sizes."""
    model = keras.Sequential([keras.Input((33,)), ql.QuantInput(4.0)])
    for bits in range(1, 9):
        model.add(dense(87 if bits % 2 else 18, Tanh(bits)))
        model.add(ql.ClippedReLU(4.0))
    model.add(dense(3, Tanh(8), normalized=False))
    model.add(ql.QuantActivation(16.0))
    return model


@net
def linear_quantizer() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((87,)),
            ql.QuantInput(4.0),
            *(
                layer
                for bits in (1, 2, 5, 8)
                for layer in (dense(20, Linear(bits), gain="channel"), ql.ClippedReLU(2.0))
            ),
            dense(2, Linear(4), normalized=False, gain=None, use_bias=False),
            ql.QuantActivation(8.0),
        ]
    )


@net
def odd_codes() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((40,)),
            ql.QuantInput(4.0),
            *(layer for bits in (2, 3, 7) for layer in (dense(24, Tanh(bits, grid="bin_centre")), ql.ClippedReLU(4.0))),
            dense(2, Tanh(1)),
            ql.QuantActivation(8.0),
        ]
    )


@net
def two_bytes_a_channel() -> keras.Model:
    """Scale and bias of a channel together in 16 bits of the file."""
    model = keras.Sequential([keras.Input((40,)), ql.QuantInput(4.0)])
    for bits, scale_bits, resolution in ((4, 4, 1), (1, 5, 2), (5, 3, 0.5), (3, 1, 4)):
        model.add(dense(87, Tanh(bits), scale_bits=scale_bits, bias_resolution=resolution))
        model.add(ql.ClippedReLU(4.0))
    model.add(dense(3, Tanh(4), normalized=False))
    model.add(ql.QuantActivation(16.0))
    return model


@net
def narrow_activations() -> keras.Model:
    """Bounds that int8 does not give by itself: fewer bits, a bound inside the range."""
    return keras.Sequential(
        [
            keras.Input((40,)),
            ql.QuantInput(4.0, bits=8),
            dense(24, Tanh(4)),
            ql.ClippedReLU(4.0, bits=5),
            dense(24, Tanh(4), bias_resolution=8),
            ql.ClippedReLU(6.0),
            dense(24, Tanh(4)),
            ql.ClippedReLU(2.7),
            dense(8, Tanh(4)),
            ql.QuantActivation(8.0, bits=6),
        ]
    )


@net
def stock_between() -> keras.Model:
    """Stock layers that move codes, between ours."""
    x = inputs = keras.Input((12, 10, 2), name="image")
    x = ql.QuantInput(4.0)(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Reshape((6, 10))(x)
    x = dense(8, Tanh(4))(x)
    x = ql.ClippedReLU(4.0)(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Flatten()(x)
    a = ql.ClippedReLU(4.0)(dense(9, Tanh(3))(x))
    b = ql.ClippedReLU(4.0)(dense(7, Tanh(5))(x))
    x = layers.Concatenate()([a, b])
    x = ql.QuantActivation(8.0)(dense(4, Tanh(4))(x))
    return keras.Model(inputs, x)


@net
def residual_softmax() -> keras.Model:
    """Stock arithmetic: Add and Softmax round in their own way."""
    x = inputs = keras.Input((20,))
    x = ql.QuantInput(4.0)(x)
    a = ql.QuantActivation(4.0)(dense(20, Tanh(4))(x))
    x = ql.QuantActivation(8.0)(layers.Add()([a, x]))
    x = ql.QuantActivation(8.0)(dense(5, Tanh(4))(x))
    return keras.Model(inputs, layers.Softmax()(x))


@net
def several_inputs_and_outputs() -> keras.Model:
    first, second = keras.Input((10,), name="second_in_name_order"), keras.Input((6,), name="first_in_name_order")
    a = ql.ClippedReLU(4.0)(dense(12, Tanh(4))(ql.QuantInput(4.0)(first)))
    b = ql.ClippedReLU(4.0)(dense(12, Tanh(4))(ql.QuantInput(2.0)(second)))
    both = layers.Concatenate()([a, b])
    one = ql.QuantActivation(8.0)(dense(3, Tanh(4))(both))
    two = ql.QuantActivation(4.0)(dense(2, Tanh(2))(both))
    return keras.Model([first, second], [one, two])


@net
def used_twice() -> keras.Model:
    """One layer on two inputs, and one output read through two ranges."""
    first, second = keras.Input((10,), name="a"), keras.Input((10,), name="b")
    shared, relu = dense(8, Tanh(4)), ql.ClippedReLU(4.0)
    a = relu(shared(ql.QuantInput(4.0)(first)))
    b = relu(shared(ql.QuantInput(4.0)(second)))
    y = dense(6, Tanh(4))(layers.Concatenate()([a, b]))
    return keras.Model([first, second], [ql.ClippedReLU(4.0)(y), ql.QuantActivation(8.0)(y)])


@net
def stock_normalization() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((30,)),
            ql.QuantInput(4.0),
            dense(24, Tanh(4), normalized=False),
            layers.BatchNormalization(momentum=0.5),
            layers.ReLU(),
            ql.QuantActivation(4.0, signed=False),
            dense(5, Tanh(4), normalized=False),
            layers.BatchNormalization(momentum=0.5),
            ql.QuantActivation(8.0),
        ]
    )


@net
def other_scales() -> keras.Model:
    """Scales that are no powers of two, one of them learnt."""
    return keras.Sequential(
        [
            keras.Input((30,)),
            ql.QuantInput(3.0, power_of_two=False),
            dense(24, Tanh(4)),
            ql.ClippedReLU(5.0, power_of_two=False),
            dense(24, Tanh(4)),
            ql.ClippedReLU(5.0, momentum=0.5, power_of_two=False),
            dense(5, Tanh(4)),
            ql.QuantActivation(8.0, power_of_two=False),
        ]
    )


@net
def learnt_range() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((30,)),
            ql.QuantInput(1.0, momentum=0.5),
            dense(24, Tanh(4)),
            ql.ClippedReLU(1.0, momentum=0.5),
            dense(5, Tanh(4)),
            ql.QuantActivation(1.0, momentum=0.5),
        ]
    )


def normalized(layer: type, *sizes: int | tuple[int, ...], **arguments: object) -> object:
    return layer(*sizes, normalization=ql.QuantBatchNormalization(momentum=0.5), **arguments)


@convolutional
def windows() -> keras.Model:
    """Every kind of window, odd channel counts, every width."""
    x = inputs = keras.Input((19, 16, 3))
    x = ql.QuantInput(4.0)(x)
    for layer in (
        normalized(ql.QuantConv2D, 7, 3, padding="same", kernel_quantizer=Tanh(8)),
        normalized(ql.QuantConv2D, 10, 1, kernel_quantizer=Tanh(1), gain="channel"),
        normalized(ql.QuantConv2D, 6, (5, 4), strides=2, padding="same", kernel_quantizer=Linear(5)),
        normalized(ql.QuantDepthwiseConv2D, 3, padding="same", depth_multiplier=2, kernel_quantizer=Tanh(4)),
        normalized(ql.QuantConv2D, 9, (2, 3), padding="same", dilation_rate=(3, 2), groups=3, kernel_quantizer=Tanh(3)),
        normalized(ql.QuantDepthwiseConv2D, (3, 2), dilation_rate=2, kernel_quantizer=Tanh(6, "bin_centre")),
        normalized(ql.QuantConv2D, 5, 2, strides=(3, 1), kernel_quantizer=Tanh(7)),
    ):
        x = ql.ClippedReLU(4.0)(layer(x))
    x = layers.Flatten()(x)
    return keras.Model(inputs, ql.QuantActivation(16.0)(dense(4, Tanh(4), normalized=False)(x)))


@convolutional
def causal() -> keras.Model:
    """One dimension, as a streaming model sees it."""
    x = inputs = keras.Input((21, 5))
    x = ql.QuantInput(4.0)(x)
    for layer in (
        normalized(ql.QuantConv1D, 11, 3, padding="causal", strides=2, kernel_quantizer=Tanh(4)),
        normalized(ql.QuantDepthwiseConv1D, 5, padding="causal", kernel_quantizer=Tanh(2)),
        normalized(ql.QuantConv1D, 6, 1, kernel_quantizer=Tanh(4)),
        normalized(ql.QuantConv1D, 8, 2, padding="causal", dilation_rate=4, groups=2, kernel_quantizer=Linear(3)),
        normalized(ql.QuantSeparableConv1D, 7, 3, strides=2, padding="same", depthwise_quantizer=Tanh(8)),
    ):
        x = ql.ClippedReLU(4.0)(layer(x))
    x = layers.MaxPooling1D(2)(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, ql.QuantActivation(16.0)(dense(4, Tanh(4), normalized=False)(x)))


@convolutional
def convolution_last() -> keras.Model:
    """Frame by frame, two outputs read from one convolution."""
    x = inputs = keras.Input((12, 4))
    x = ql.QuantConv1D(3, 4, padding="same", kernel_quantizer=Tanh(4))(ql.QuantInput(4.0)(x))
    return keras.Model(inputs, [ql.ClippedReLU(2.0)(x), ql.QuantActivation(8.0)(x)])


@convolutional
def ds_cnn() -> keras.Model:
    """Depthwise separable blocks on a spectrogram."""
    x = inputs = keras.Input((15, 10, 1))
    x = ql.QuantInput(4.0)(x)
    x = ql.ClippedReLU(4.0)(
        normalized(ql.QuantConv2D, 12, (10, 4), strides=2, padding="same", kernel_quantizer=Tanh(8))(x)
    )
    for bits in (4, 3):
        for layer in (
            normalized(ql.QuantDepthwiseConv2D, 3, padding="same", kernel_quantizer=Tanh(bits)),
            normalized(ql.QuantConv2D, 12, 1, kernel_quantizer=Tanh(bits)),
        ):
            x = ql.ClippedReLU(4.0)(layer(x))
    x = ql.QuantActivation(4.0, signed=False)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, ql.QuantActivation(8.0)(dense(4, Tanh(8), normalized=False)(x)))


@convolutional
def tc_resnet() -> keras.Model:
    """Temporal convolutions with residual blocks, the second strided and dilated."""

    def convolution(x: object, channels: int, size: int, bits: int, **arguments: object) -> object:
        return normalized(ql.QuantConv1D, channels, size, padding="same", kernel_quantizer=Tanh(bits), **arguments)(x)

    x = inputs = keras.Input((24, 10))
    x = ql.ClippedReLU(4.0)(convolution(ql.QuantInput(4.0)(x), 8, 3, 8))
    for channels, strides in ((8, 1), (12, 2)):
        a = ql.ClippedReLU(4.0)(convolution(x, channels, 9, 4, strides=strides))
        a = ql.QuantActivation(4.0)(convolution(a, channels, 9, 2, dilation_rate=strides))
        if strides > 1:
            x = ql.ClippedReLU(4.0)(convolution(x, channels, 1, 4, strides=strides))
        x = ql.ClippedReLU(4.0)(layers.Add()([a, x]))
    x = ql.QuantActivation(4.0, signed=False)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, ql.QuantActivation(8.0)(dense(4, Tanh(8), normalized=False)(x)))


@convolutional
def resnet() -> keras.Model:
    """Stock layers between convolutions: each becomes one int8 op."""

    def convolution(x: object, channels: int, size: int, **arguments: object) -> object:
        return normalized(ql.QuantConv2D, channels, size, kernel_quantizer=Tanh(4), **arguments)(x)

    x = inputs = keras.Input((12, 12, 3))
    x = layers.ZeroPadding2D(1)(ql.QuantInput(4.0)(x))
    x = ql.ClippedReLU(4.0)(convolution(x, 8, 3))
    a = ql.QuantActivation(4.0)(convolution(x, 8, 3, padding="same", strides=2))
    b = ql.QuantActivation(4.0)(convolution(x, 8, 1, strides=2))
    x = ql.ClippedReLU(4.0)(layers.Add()([a, b]))
    x = layers.Concatenate()([layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)])
    x = ql.ClippedReLU(4.0)(convolution(x, 6, 3, padding="same"))
    x = layers.Reshape((9, 6))(x)
    x = ql.ClippedReLU(4.0)(normalized(ql.QuantConv1D, 5, 3, padding="causal", kernel_quantizer=Tanh(4))(x))
    x = layers.Flatten()(layers.Reshape((3, 3, 5))(x))
    return keras.Model(inputs, ql.QuantActivation(8.0)(dense(4, Tanh(4), normalized=False)(x)))


@convolutional
def stock_normalization_behind_convolutions() -> keras.Model:
    parts: list[object] = [keras.Input((9, 8, 3)), ql.QuantInput(4.0)]
    for layer in (ql.QuantConv2D(6, 3, kernel_quantizer=Tanh(4)), ql.QuantDepthwiseConv2D(3, kernel_quantizer=Tanh(4))):
        parts += [layer, layers.BatchNormalization(momentum=0.5), layers.ReLU(), ql.QuantActivation(4.0, signed=False)]
    return keras.Sequential([*parts, layers.GlobalMaxPooling2D(), dense(3, Tanh(4)), ql.QuantActivation(8.0)])


def dense16(units: int, quantizer: ql.quantizers.Quantizer, **arguments: object) -> ql.QuantDense:
    return dense(units, quantizer, input_bits=16, **arguments)


@sixteen_bits
def every_width_on_int16() -> keras.Model:
    """As in the paper's M1, at every width of weights; the sums reach beyond 32 bits."""
    model = keras.Sequential([keras.Input((33,)), ql.QuantInput(4.0, bits=16)])
    for bits in range(1, 9):
        model.add(dense16(87 if bits % 2 else 18, Tanh(bits)))
        model.add(ql.ClippedReLU(4.0, bits=16))
    model.add(dense16(3, Tanh(8), normalized=False))
    model.add(ql.QuantActivation(16.0, bits=16))
    return model


@sixteen_bits
def narrow_int16() -> keras.Model:
    """Bounds that int16 does not give by itself, signed codes between layers, the other quantizer and grid."""
    return keras.Sequential(
        [
            keras.Input((40,)),
            ql.QuantInput(4.0, bits=12),
            dense16(24, Tanh(4)),
            ql.ClippedReLU(4.0, bits=9),
            dense16(24, Linear(5), gain="channel", bias_resolution=64),
            ql.QuantActivation(2.0, bits=16),
            dense16(24, Tanh(3, grid="bin_centre")),
            layers.ReLU(),
            ql.QuantActivation(2.7, bits=16),
            dense16(24, Tanh(4), scale_bits=4, bias_resolution=0.25),
            ql.ClippedReLU(6.0, bits=16),
            dense16(24, Tanh(4)),
            ql.ClippedReLU(2.7, bits=16),
            dense16(8, Linear(1), gain=None, use_bias=False),
            ql.ClippedReLU(1.0, bits=13, momentum=0.5),
            dense16(8, Tanh(8)),
            ql.QuantActivation(1.0, bits=15, momentum=0.5),
        ]
    )


@sixteen_bits
def stock_between_on_int16() -> keras.Model:
    """Stock layers that move int16 codes, two readers of one tensor, two ranges of one layer, both widths at once."""
    x = inputs = keras.Input((12, 10, 2), name="image")
    eight = ql.ClippedReLU(4.0)(dense(6, Tanh(4))(ql.QuantInput(4.0)(layers.Flatten()(x))))
    x = ql.QuantInput(4.0, bits=16)(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Reshape((6, 10))(x)
    x = ql.ClippedReLU(4.0, bits=16)(dense16(8, Tanh(4))(x))
    x = layers.Dropout(0.5)(x)
    x = layers.Flatten()(x)
    a = ql.ClippedReLU(4.0, bits=16)(dense16(9, Tanh(3))(x))
    y = dense16(4, Tanh(5))(x)
    last = dense16(4, Tanh(4))(a)
    outputs = [ql.QuantActivation(8.0, bits=16)(last), ql.ClippedReLU(4.0, bits=16)(y), ql.QuantActivation(8.0, 16)(y)]
    return keras.Model(inputs, [*outputs, ql.QuantActivation(8.0)(dense(3, Tanh(4))(eight))])


@sixteen_bits
def other_width_behind() -> keras.Model:
    """From 8 bits to 16 and back, through a second quantizer."""
    return keras.Sequential(
        [
            keras.Input((30,)),
            ql.QuantInput(4.0),
            dense(24, Tanh(4)),
            ql.ClippedReLU(4.0),
            ql.QuantActivation(4.0, bits=16),
            dense16(24, Tanh(4)),
            ql.QuantActivation(4.0, bits=16),
            ql.QuantActivation(4.0),
            dense(5, Tanh(4)),
            ql.QuantActivation(8.0),
        ]
    )


@sixteen_bits
def stock_normalization_on_int16() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((30,)),
            ql.QuantInput(4.0, bits=16),
            dense16(24, Tanh(4), normalized=False),
            layers.BatchNormalization(momentum=0.5),
            layers.ReLU(),
            ql.QuantActivation(4.0, bits=16, signed=False),
            dense16(5, Tanh(4), normalized=False),
            layers.BatchNormalization(momentum=0.5),
            ql.QuantActivation(8.0, bits=16),
        ]
    )


#: Nets with a Flatten or Reshape, which fixes the batch.
FIXED_BATCH = ("stock_between", "windows", "causal", "stock_between_on_int16")

#: What `verify` promises of each net: "exact" equals Keras on every code, "close" within the stated share by one code,
#: "stock" holds stock ops that round in their own way.
PROMISES = {
    "residual_softmax": "stock",
    "ds_cnn": "stock",
    "tc_resnet": "stock",
    "resnet": "stock",
    "stock_normalization_behind_convolutions": "close",
    "stock_normalization": "close",
    "stock_normalization_on_int16": "close",
    "other_scales": "close",
}
