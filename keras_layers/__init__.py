"""Keras layers with 1 to 8-bit weights, trained in two stages; they run under Keras 3 and under tf-keras.

    from subbyte import keras_layers as ql

Importing this package registers its classes, so that `tf.keras.models.load_model` needs no `custom_objects`.
"""

from subbyte.extras import needed_by

with needed_by("subbyte.keras_layers"):
    from . import quantizers
    from .activations import ClippedReLU, QuantActivation, QuantInput
    from .conv import (
        QuantConv1D,
        QuantConv2D,
        QuantDepthwiseConv1D,
        QuantDepthwiseConv2D,
    )
    from .dense import QuantDense
    from .deployment import Deployment
    from .normalization import QuantBatchNormalization
    from .post_training import PostTraining, quantize_post_training
    from .quantize import quantize_model
    from .recipe import Recipe
    from .regularizers import TargetDistribution
    from .separable import QuantSeparableConv1D, QuantSeparableConv2D
    from .stages import PARTS, TwoStage, set_stage, stage_of

__all__ = [
    "PARTS",
    "ClippedReLU",
    "Deployment",
    "PostTraining",
    "QuantActivation",
    "QuantBatchNormalization",
    "QuantConv1D",
    "QuantConv2D",
    "QuantDense",
    "QuantDepthwiseConv1D",
    "QuantDepthwiseConv2D",
    "QuantInput",
    "QuantSeparableConv1D",
    "QuantSeparableConv2D",
    "Recipe",
    "TargetDistribution",
    "TwoStage",
    "quantize_model",
    "quantize_post_training",
    "quantizers",
    "set_stage",
    "stage_of",
]
