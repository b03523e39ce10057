"""The models M0 to M6 of the paper (arXiv 2207.06920, tables 1 and 5): six hidden layers, narrow and wide in turn.

    from subbyte.keyword_spotting import models
    network = models.model("M4", classes=7)

Every hidden layer is dense, batch normalisation, clipped ReLU. M0 is the float model of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .features import INPUTS

if TYPE_CHECKING:
    import tensorflow as tf

FLOAT = 32
INPUT_MAX = 4.0  # standard deviations of a normalised feature
ACTIVATION_MAX = 4.0
LOGIT_MAX = 16.0
MOMENTUM = 0.95  # of batch normalisation's averages: settled after a hundred updates


@dataclass(frozen=True)
class Architecture:
    """Sizes and weight bits of one model.

    Attributes:
        units: of the hidden layers.
        bits: of the weights of each layer, the classifier last; 32 is float.
        activation_bits: of inputs and activations.
    """

    units: tuple[int, ...]
    bits: tuple[int, ...]
    activation_bits: int = 8


_NARROW_WIDE = (87, 400) * 3
ARCHITECTURES = {
    "M0": Architecture(_NARROW_WIDE, (FLOAT,) * 7, FLOAT),
    "M1": Architecture(_NARROW_WIDE, (8,) * 7, 16),
    "M2": Architecture(_NARROW_WIDE, (8,) * 7),
    "M3": Architecture(_NARROW_WIDE, (5,) * 7),
    "M4": Architecture(_NARROW_WIDE, (4,) * 7),
    "M5": Architecture((123, 566) * 3, (5, 5, 1, 1, 1, 1, 5)),
    "M6": Architecture((1080, 566, 123, 566, 123, 566), (1,) * 7),
}


def architecture(name: str) -> Architecture:
    """The architecture called `name`, one of M0 to M6.

    Raises:
        ValueError: there is no such model, or it cannot be built.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"no model {name!r}: choose one of {', '.join(ARCHITECTURES)}")
    found = ARCHITECTURES[name]
    if found.activation_bits == 16:
        raise ValueError(f"{name} needs 16-bit activations, which are not built yet; use M2")
    return found


def model(
    name: str,
    classes: int = 7,
    quantizer: Callable[..., Any] | None = None,
    bits: int | None = None,
    dropout: float = 0.0,
) -> tf.keras.Sequential:
    """An untrained Keras model from normalised features [batch, 540] to logits [batch, classes].

    Args:
        name: M0 to M6.
        classes: outputs: the keywords and "other".
        quantizer: called with `bits=`, gives the kernel quantizer of a layer; default
            `subbyte.keras_layers.quantizers.Tanh`, the paper's.
        bits: weight bits of every layer in place of the model's own.
        dropout: share of the hidden activations that training drops; nothing of it is deployed.

    Raises:
        ValueError: no such model, or M0 with a quantizer or bits.
    """
    plan = architecture(name)
    if FLOAT in plan.bits:
        if quantizer is not None or bits is not None:
            raise ValueError(f"{name} is the float model: it takes neither quantizer nor bits")
        return _float_model(plan, classes, dropout)
    plan = plan if bits is None else Architecture(plan.units, (bits,) * 7)
    return _quantized_model(plan, classes, quantizer, dropout)


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
    layers = [tf.keras.Input((INPUTS,)), ql.QuantInput(max_value=INPUT_MAX)]
    for units, bits in zip(plan.units, plan.bits, strict=False):
        normalization = ql.QuantBatchNormalization(momentum=MOMENTUM)
        kernel = quantizer(bits=bits)
        layers.append(ql.QuantDense(units, use_bias=False, kernel_quantizer=kernel, normalization=normalization))
        layers.append(ql.ClippedReLU(max_value=ACTIVATION_MAX))
        layers.append(tf.keras.layers.Dropout(dropout))
    layers.append(ql.QuantDense(classes, kernel_quantizer=quantizer(bits=plan.bits[-1])))
    layers.append(ql.QuantActivation(max_value=LOGIT_MAX))
    return tf.keras.Sequential(layers)
