"""A fully connected layer with 1 to 8-bit weights."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from . import markers
from .kernel_layer import KernelLayer


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantDense(KernelLayer):
    """A Dense layer whose kernel is integer weights times a step.

        y = normalization(gain * (step * (x @ weights) + bias))

    Example:
        QuantDense(87, kernel_quantizer=quantizers.Tanh(bits=4), normalization=QuantBatchNormalization())

    Args:
        units: size of the output's last dimension.
        activation, ..., bias_constraint: as in stock Dense; "quantizer" is explained in `KernelLayer`.
        **kwargs: `kernel_quantizer`, `normalization`, `deployment` and its attributes: see `KernelLayer`.

    Shapes: [..., inputs] -> [..., units].
    """

    marker = markers.FULLY_CONNECTED

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "quantizer",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = "quantizer",
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.units = self._count("units", units)

    def _output_channels(self, inputs: Any) -> Any:
        return self.units

    def _kernel_shape(self, inputs: int) -> tuple[int, ...]:
        return inputs, self.units

    def _product(self, x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, weights) if len(x.shape) == 2 else tf.tensordot(x, weights, axes=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
