"""The models M0 to M6 of the paper (arXiv 2207.06920, tables 1 and 5), and three convolutional ones.

    from subbyte.keyword_spotting import models
    network = models.model("M4", classes=7)
    network = models.model("tc_resnet_wide", classes=7, bits=4)

M0 to M6 have six hidden layers, narrow and wide in turn: dense, batch normalisation, clipped ReLU. M0 is the float
model of the same shape. `ds_cnn`, `tc_resnet` and `tc_resnet_wide`, the one we recommend, are float models; with bits
they are made quantized by `subbyte.keras_layers.quantize_model`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .features import INPUTS, KEPT_FRAMES, MEL_BINS

if TYPE_CHECKING:
    import tensorflow as tf

FLOAT = 32
INPUT_MAX = 4.0  # standard deviations of a normalised feature
ACTIVATION_MAX = 4.0
LOGIT_MAX = 16.0
MOMENTUM = 0.95  # of batch normalisation's averages: settled after a hundred updates


@dataclass(frozen=True)
class Architecture:
    """Sizes and bits of one dense model.

    Attributes:
        units: of the hidden layers.
        bits: of the weights of each layer, the classifier last; 32 is float.
        activation_bits: of inputs and activations. Outputs have 8, or 16 where activations have more than 8.
        parameter_bits: of bias and gain.
        normalization_bits: of the four vectors of batch normalization.
        scaling: whose C_BN it is, see `subbyte.keras_layers.QuantBatchNormalization`.
        scale_bits: of what a hidden channel's gain and normalization fold into, see `subbyte.keras_layers.QuantDense`;
            with fewer than 8 a channel takes 2 bytes in the file instead of 4. The few outputs keep 8.
    """

    units: tuple[int, ...]
    bits: tuple[int, ...]
    activation_bits: int = 8
    parameter_bits: int = 8
    normalization_bits: int = 8
    scaling: str | None = "channel"
    scale_bits: int = 8

    @property
    def is_float(self) -> bool:
        return FLOAT in self.bits

    def with_bits(self, bits: int) -> Architecture:
        """The same with one width for the weights of every layer."""
        return replace(self, bits=(bits,) * len(self.bits))


_NARROW_WIDE = (87, 400) * 3
ARCHITECTURES = {
    "M0": Architecture(_NARROW_WIDE, (FLOAT,) * 7, FLOAT),
    "M1": Architecture(_NARROW_WIDE, (8,) * 7, 16),
    "M2": Architecture(_NARROW_WIDE, (8,) * 7),
    "M3": Architecture(_NARROW_WIDE, (5,) * 7, scale_bits=3),
    "M4": Architecture(_NARROW_WIDE, (4,) * 7, scale_bits=4),
    "M5": Architecture((123, 566) * 3, (5, 5, 1, 1, 1, 1, 5), scale_bits=4),
    "M6": Architecture((1080, 566, 123, 566, 123, 566), (1,) * 7, scale_bits=4),
}


def _depthwise_separable(classes: int, dropout: float) -> tf.keras.Model:
    """DS-CNN of MLPerf Tiny's keyword spotting (after arXiv 1711.07128): 64 channels, four separable blocks."""
    import tensorflow as tf

    layers = tf.keras.layers

    def normalized(x: Any, layer: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(layer(x)))

    x = inputs = tf.keras.Input((INPUTS,))
    x = layers.Reshape((KEPT_FRAMES, MEL_BINS, 1))(x)
    x = normalized(x, layers.Conv2D(64, (10, 4), 2, "same", use_bias=False, name="stem"))
    for block in range(1, 5):
        x = normalized(x, layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"block{block}_depthwise"))
        x = normalized(x, layers.Conv2D(64, 1, use_bias=False, name=f"block{block}_pointwise"))
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model(inputs, layers.Dense(classes, name="classifier")(x), name="ds_cnn")


def _temporal_residual(
    classes: int,
    dropout: float,
    name: str = "tc_resnet",
    stem: int = 16,
    blocks: Sequence[int] = (24, 32, 48),
) -> tf.keras.Model:
    """TC-ResNet8 (arXiv 1904.03814): mel bands are channels, windows of 9 frames, three residual blocks.

    Args:
        classes: outputs.
        dropout: before the classifier.
        name: of the model.
        stem: channels of the first convolution.
        blocks: channels of each residual block, which halves the frames.
    """
    import tensorflow as tf

    layers = tf.keras.layers

    def normalized(x: Any, name: str, channels: int, size: int, strides: int = 1) -> Any:
        convolution = layers.Conv1D(channels, size, strides, "same", use_bias=False, name=name)
        return layers.BatchNormalization(momentum=MOMENTUM)(convolution(x))

    x = inputs = tf.keras.Input((INPUTS,))
    x = layers.Reshape((KEPT_FRAMES, MEL_BINS))(x)
    x = layers.ReLU()(normalized(x, "stem", stem, 3))
    for block, channels in enumerate(blocks, start=1):
        y = layers.ReLU()(normalized(x, f"block{block}_a", channels, 9, 2))
        y = normalized(y, f"block{block}_b", channels, 9)
        x = layers.ReLU()(normalized(x, f"block{block}_shortcut", channels, 1, 2))
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling1D()(x))
    return tf.keras.Model(inputs, layers.Dense(classes, name="classifier")(x), name=name)


def _wide_temporal_residual(classes: int, dropout: float) -> tf.keras.Model:
    """TC-ResNet8 with about twice the channels, all that 250,000 parameters hold: ours, see docs/recipe.md.

    The channels keep TC-ResNet8's ratios but for the stem, which costs little, and are multiples of 4.
    """
    return _temporal_residual(classes, dropout, "tc_resnet_wide", 32, (44, 60, 92))


#: Float models that `quantize_model` makes quantized.
CONVOLUTIONAL: dict[str, Callable[[int, float], Any]] = {
    "ds_cnn": _depthwise_separable,
    "tc_resnet": _temporal_residual,
    "tc_resnet_wide": _wide_temporal_residual,
}
NAMES = (*ARCHITECTURES, *CONVOLUTIONAL)


def is_float(model: str | Architecture, bits: int | None = None) -> bool:
    """Whether a model trains in float: M0, and a convolutional one of which no bits are asked.

    Raises:
        ValueError: there is no such model.
    """
    return bits is None if model in CONVOLUTIONAL else architecture(model).is_float


def architecture(model: str | Architecture) -> Architecture:
    """The architecture called M0 to M6; one that is none already.

    Raises:
        ValueError: there is no such model.
    """
    if isinstance(model, Architecture):
        return model
    if model not in ARCHITECTURES:
        raise ValueError(f"no model {model!r}: choose one of {', '.join(NAMES)}")
    return ARCHITECTURES[model]


def model(
    name: str | Architecture,
    classes: int = 7,
    quantizer: Callable[..., Any] | None = None,
    bits: int | None = None,
    dropout: float = 0.0,
) -> tf.keras.Model:
    """An untrained Keras model from normalised features [batch, 540] to logits [batch, classes].

    Args:
        name: of NAMES; or the architecture of another dense model.
        classes: outputs: the keywords and "other".
        quantizer: called with `bits=`, gives the kernel quantizer of a layer; default
            `subbyte.keras_layers.quantizers.Tanh`, the paper's, and for a convolutional model `Linear`.
        bits: weight bits of every layer in place of the model's own; of a convolutional model those of all layers but
            the first and the last, which have 8.
        dropout: share of the hidden activations that training drops; nothing of it is deployed.

    Raises:
        ValueError: no such model, or a float model with a quantizer or bits.
    """
    if isinstance(name, str) and name in CONVOLUTIONAL:
        network = CONVOLUTIONAL[name](classes, dropout)
        return network if is_float(name, bits) else quantized(network, bits or 8, quantizer)
    plan = architecture(name)
    if plan.is_float:
        if quantizer is not None or bits is not None:
            raise ValueError(f"{name} is the float model: it takes neither quantizer nor bits")
        return _float_model(plan, classes, dropout)
    return _quantized_model(plan if bits is None else plan.with_bits(bits), classes, quantizer, dropout)


def quantized(
    network: tf.keras.Model, bits: int, quantizer: Callable[..., Any] | None = None, calibration: Any = None
) -> tf.keras.Model:
    """The quantization-aware twin of a float model; see `subbyte.keras_layers.quantize_model`."""
    from subbyte import keras_layers as ql

    chosen = quantizer or ql.quantizers.Linear
    return ql.quantize_model(network, ql.Recipe(bits=bits, quantizer=lambda width: chosen(bits=width)), calibration)


def _float_model(plan: Architecture, classes: int, dropout: float) -> tf.keras.Sequential:
    import tensorflow as tf

    layers = [tf.keras.Input((INPUTS,))]
    for units in plan.units:
        layers.append(tf.keras.layers.Dense(units, use_bias=False))  # batch normalisation has the bias
        layers.append(tf.keras.layers.BatchNormalization(momentum=MOMENTUM))
        layers.append(tf.keras.layers.ReLU())
        layers.append(tf.keras.layers.Dropout(dropout))
    layers.append(tf.keras.layers.Dense(classes))
    return tf.keras.Sequential(layers)


def _quantized_model(
    plan: Architecture, classes: int, quantizer: Callable[..., Any] | None, dropout: float
) -> tf.keras.Sequential:
    import tensorflow as tf

    from subbyte import keras_layers as ql

    quantizer = quantizer or ql.quantizers.Tanh
    wide = plan.activation_bits > 8
    common: dict[str, Any] = {"parameter_bits": plan.parameter_bits, "input_bits": 16 if wide else 8}
    layers = [tf.keras.Input((INPUTS,)), ql.QuantInput(max_value=INPUT_MAX, bits=plan.activation_bits)]
    for units, inputs, bits in zip(plan.units, (INPUTS, *plan.units), plan.bits, strict=False):
        normalization = ql.QuantBatchNormalization(
            momentum=MOMENTUM, bits=plan.normalization_bits, scaling=plan.scaling
        )
        dense = ql.QuantDense(
            units,
            use_bias=False,
            kernel_quantizer=quantizer(bits=bits),
            normalization=normalization,
            bias_resolution=_bias_resolution(plan, inputs, bits),
            scale_bits=plan.scale_bits,
            **common,
        )
        layers += [dense, ql.ClippedReLU(max_value=ACTIVATION_MAX, bits=plan.activation_bits)]
        layers.append(tf.keras.layers.Dropout(dropout))
    last = ql.QuantDense(
        classes,
        kernel_quantizer=quantizer(bits=plan.bits[-1]),
        bias_resolution=_finest_resolution(plan),
        **common,
    )
    layers.append(last)
    layers.append(ql.QuantActivation(max_value=LOGIT_MAX, bits=16 if wide else 8))
    return tf.keras.Sequential(layers)


def _finest_resolution(plan: Architecture) -> float:
    """Biases in steps of the activations."""
    return min(16.0, 2.0**plan.activation_bits / ACTIVATION_MAX)


def _bias_resolution(plan: Architecture, inputs: int, bits: int) -> float:
    """The finest with which a hidden layer's biases are likely to fit what its records have left for them.

    For the zero point of inputs from 0 to ACTIVATION_MAX the kernel's bias holds 128 * sum(weights) of their steps,
    which are ACTIVATION_MAX / 256 each: in scales, ACTIVATION_MAX / 2 * sum(weights). Four standard deviations of it
    may take three quarters of the room. The first layer, whose inputs are signed, is treated like the others.
    """
    from subbyte import keras_layers as ql

    if plan.scale_bits == 8:
        # A step of 8-bit weights is a tenth of that of 4 bits: with coarser biases 16 bits hold them too.
        return 0.5 if bits == 8 else _finest_resolution(plan)
    deviation = math.sqrt(inputs) * (1 if bits == 1 else (2 ** (bits - 1) - 1) / math.sqrt(3))
    largest = ACTIVATION_MAX / 2 * 4 * deviation
    room = 0.75 * ql.Deployment(scale_bits=plan.scale_bits).most_bias
    return min(_finest_resolution(plan), 2.0 ** math.floor(math.log2(room / largest)))
