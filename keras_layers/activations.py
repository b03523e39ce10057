"""Activation quantizers: TFLite int8 or int16, real = scale * (code - zero point), in a range known beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from . import markers, numerics, stages

#: Name of the variable that holds a range that follows the data.
RANGE = "moving_maximum"
#: A range that has seen no data yet: it bounds nothing.
UNSEEN = 2.0**30
#: Name of the variable that holds a range that does not move: (lowest, largest value).
FIXED_RANGE = "fixed_range"


def code_range(bits: int, signed: bool) -> tuple[float, float]:
    """Smallest and largest code of an activation, as if the zero point were 0.

    TFLite has no zero point in int16, the type beyond 8 bits: unsigned codes are its upper half.
    """
    half = 2.0 ** (bits - 1)
    if signed:
        return -half, half - 1
    return 0.0, (2 * half if bits <= 8 else half) - 1


class ActivationQuantizer(tf.keras.layers.Layer):
    """Base of the activation quantizers: a bounded range and, in stage 2, even steps in it.

    arXiv 2207.06920, section 4.3: the bound is the range rule. It holds in both stages, so that stage 2 finds the range
    it needs. Where the scale is a power of two (the default), Keras computes what the deployed model computes, bit for
    bit. The range is one of the layer's weights: a layer that is given another's weights has that one's range.

    Args:
        max_value: end of the range. Signed codes reach from -max_value to just below max_value, unsigned ones from 0.
            None, with a momentum, starts at the first training batch's largest |x|; until then nothing is bounded.
        bits: 2 to 8; fewer than 8 leave int8 codes unused. 9 to 16 are int16 codes, whose zero point is 0: unsigned
            ones have a bit less. A layer behind them needs `input_bits=16`.
        power_of_two: round the scale up to a power of two. int16 codes have no other.
        momentum: None keeps `max_value`. A number such as 0.99 lets the range follow the moving average of the training
            batches' largest |x|, from `max_value` on; it stands still in inference.

    Shapes: any; the output has the input's.
    """

    def __init__(
        self,
        max_value: float | None,
        bits: int = 8,
        power_of_two: bool = True,
        momentum: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**numerics.in_float32(kwargs))
        is_number = isinstance(max_value, int | float) and not isinstance(max_value, bool)
        is_good = momentum is not None if max_value is None else is_number and 0 < max_value < math.inf
        if not is_good:
            raise ValueError(
                f"{self.name}: max_value must be a positive number, or None with a momentum, not {max_value!r}"
            )
        if bits not in range(2, 17):
            raise ValueError(f"{self.name}: bits must be 2 to 16, not {bits!r}")
        if bits > 8 and not power_of_two:
            raise ValueError(f"{self.name}: {bits} bits need power_of_two=True")
        if momentum is not None and not 0 <= momentum < 1:
            raise ValueError(f"{self.name}: momentum must be None or a number from 0 to below 1, not {momentum!r}")
        # None only where a momentum makes the range a variable.
        self.max_value: Any = None if max_value is None else float(max_value)
        self.bits, self.power_of_two = int(bits), bool(power_of_two)
        self.momentum = momentum
        self.signed = True
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        numerics.require_float32(self)
        self.stage_flag = stages.add_stage_flag(self, "activations")
        if self.momentum is not None:
            start = tf.keras.initializers.Constant(UNSEEN if self.max_value is None else self.max_value)
            self.moving_maximum = self.add_weight(name=RANGE, shape=(), initializer=start, trainable=False)
        else:
            self.fixed_range = self.add_weight(
                name=FIXED_RANGE,
                shape=(2,),
                initializer=lambda shape, dtype=None: tf.constant(self._range, dtype or tf.float32),
                trainable=False,
            )
        self.built = True

    @property
    def _range(self) -> tuple[float, float]:
        """Where `max_value` fixes it."""
        return -self.max_value if self.signed else 0.0, self.max_value

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self._follow_weights()

    def _follow_weights(self) -> None:
        """Lets the arguments be those of a range that came with weights, since it decides on what is deployed."""
        if self.momentum is not None or tf.distribute.has_strategy():
            return
        with tf.init_scope():
            found = self.fixed_range.numpy() if tf.executing_eagerly() else np.asarray(self._range, np.float32)
        if not np.array_equal(found, np.asarray(self._range, np.float32)):
            self.signed, self.max_value = bool(found[0] < 0), float(found[1])

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            self._follow_weights()
        inputs = tf.cast(inputs, tf.float32)  # lookups of Keras 3 give integers where they say float
        if training:
            scale = self._scale(inputs, training=True)
            # Stage 1 rounds to a grid so fine that it moves nothing.
            step = tf.where(stages.is_on(self.stage_flag), scale, 2.0**-80)
            return self._to_grid(inputs, *self._bounds(scale), step)
        scale = self._scale(inputs, training=False)
        low, high = self._bounds(scale)

        def deployed() -> tf.Tensor:
            bounded = self._clamp_inside_container(inputs, low, high)
            outputs = markers.call_rounding(self._to_grid, bounded, low, high, scale)
            outputs.set_shape(inputs.shape)
            return self._carry_range(outputs, scale)

        outputs = markers.choose(
            lambda: stages.is_on(self.stage_flag), deployed, lambda: tf.clip_by_value(inputs, low, high)
        )
        outputs.set_shape(inputs.shape)
        markers.tap(self.name, outputs)
        return outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_value": self.max_value,
            "bits": self.bits,
            "power_of_two": self.power_of_two,
            "momentum": self.momentum,
        }

    @property
    def _container_bits(self) -> int:
        return 8 if self.bits <= 8 else 16

    def _scale(self, inputs: tf.Tensor, training: bool) -> tf.Tensor | float:
        if self._is_number:
            return self._fixed_scale()
        high_code = self._codes(self.bits)[1]
        steps = high_code + 1 if self.power_of_two else high_code
        if self.momentum is None:
            scale, floor = tf.convert_to_tensor(self.fixed_range)[1] / steps, 2.0**-100
        else:
            scale, floor = tf.maximum(self._followed(inputs, training), 2.0**-20) / steps, 2.0**-20
        return numerics.power_of_two_above(scale, floor) if self.power_of_two else scale

    @property
    def _is_number(self) -> bool:
        """Whether the range is what its weight is now: numbers leave no names in the graph that is converted."""
        return self.momentum is None and markers.is_tracing()

    def _fixed_scale(self) -> float:
        """`_scale` of a range that does not move, as a number."""
        end = code_range(self.bits, self.signed)[1]
        scale = self.max_value / (end + 1 if self.power_of_two else end)
        return 2.0 ** math.ceil(math.log2(scale)) if self.power_of_two else scale

    def _followed(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        """The end of a range that follows the data."""
        limit = tf.convert_to_tensor(self.moving_maximum)
        if training and self.momentum is not None:
            largest = tf.stop_gradient(tf.reduce_max(tf.abs(inputs)))
            limit = tf.where(limit < UNSEEN, limit + (1 - self.momentum) * (largest - limit), largest)
            self.moving_maximum.assign(limit)
        return limit

    def _codes(self, bits: int) -> tuple[tf.Tensor | float, tf.Tensor | float]:
        """See `code_range`; signed or not as the layer's weights have it."""
        if self.momentum is not None or self._is_number:
            return code_range(bits, self.signed)
        is_signed = tf.convert_to_tensor(self.fixed_range)[0] < 0
        low, high = zip(code_range(bits, signed=True), code_range(bits, signed=False), strict=True)
        return tf.where(is_signed, *low), tf.where(is_signed, *high)

    def _bounds(self, scale: tf.Tensor | float) -> tuple[tf.Tensor | float, tf.Tensor | float]:
        """Ends of the range, as numbers that codes stand for."""
        low_code, high_code = self._codes(self.bits)
        return low_code * scale, high_code * scale

    def _clamp_inside_container(self, x: tf.Tensor, low: tf.Tensor | float, high: tf.Tensor | float) -> tf.Tensor:
        """The bounds that the codes' type would not hold by saturating; they go into the deployed op."""
        lowest_is_bound = self.bits == self._container_bits if self.signed else self._container_bits == 8
        if not lowest_is_bound:
            x = tf.maximum(x, low)
        if self.bits < self._container_bits:
            x = tf.minimum(x, high)
        return x

    def _carry_range(self, x: tf.Tensor, scale: tf.Tensor | float) -> tf.Tensor:
        """Tells TensorFlow's converter scale and zero point; values on the grid pass unchanged."""
        low, high = (-32768.0, 32767.0) if self._container_bits == 16 else self._codes(8)
        return tf.quantization.fake_quant_with_min_max_vars(x, low * scale, high * scale, num_bits=self._container_bits)

    def _to_grid(self, x: tf.Tensor, low: tf.Tensor, high: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """The multiple of `scale` nearest to x bounded; a bound off the grid is rounded as well.

        Gradients pass straight through between the bounds.
        """
        rounded = tf.round if self._container_bits == 8 else numerics.round_half_away
        return numerics.straight_through_inside(
            lambda x: scale * rounded(tf.clip_by_value(x, low, high) / scale), x, low, high
        )


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantActivation(ActivationQuantizer):
    """Bounds and quantizes what has no activation function: logits, a residual sum, what a stock layer gives.

    Args:
        max_value, bits, power_of_two, momentum: see `ActivationQuantizer`.
        signed: False for values that are never negative.
    """

    def __init__(self, max_value: float | None, bits: int = 8, signed: bool = True, **kwargs: Any) -> None:
        super().__init__(max_value, bits, **kwargs)
        self.signed = bool(signed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "signed": self.signed}


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantInput(QuantActivation):
    """Bounds and quantizes a model's input: q(x / C_input), arXiv 2207.06920, section 4.3.

    The first layer of a model. For features of mean 0 and variance 1, `max_value=4` is a good range.
    """


@tf.keras.utils.register_keras_serializable(package="subbyte")
class ClippedReLU(ActivationQuantizer):
    """min(max(x, 0), max_value), in stage 2 on unsigned codes: the paper's activation function (section 4.3).

    With the default 8 bits and a power of two for `max_value` the largest output is max_value * 255/256.
    """

    def __init__(self, max_value: float | None, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(max_value, bits, **kwargs)
        self.signed = False

    def _bounds(self, scale: tf.Tensor | float) -> tuple[tf.Tensor | float, tf.Tensor | float]:
        low, high = super()._bounds(scale)
        if self._is_number:
            return low, min(high, self.max_value)
        if self.momentum is None:
            high = tf.minimum(high, tf.convert_to_tensor(self.fixed_range)[1])
        return low, high

    def _clamp_inside_container(self, x: tf.Tensor, low: tf.Tensor | float, high: tf.Tensor | float) -> tf.Tensor:
        largest = code_range(self._container_bits, signed=False)[1]
        if self.momentum is None and self.max_value < largest * self._fixed_scale():
            x = tf.minimum(x, high)
        return super()._clamp_inside_container(x, low, high)


def unseen_ranges(variables: Iterable[tf.Variable]) -> list[str]:
    """The layers among whose variables is a range that follows the data and has seen none."""
    named = [(*stages.layer_and_name(variable), variable) for variable in variables]
    return [layer for layer, name, value in named if name == RANGE and float(value.numpy()) >= UNSEEN]
