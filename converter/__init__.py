"""Keras or `.tflite` in, a TFLite model with 1 to 8-bit weights out.

    result = converter.convert(model, target="packed")      # result.tflite, result.layers

The command `convert-to-tflite` does the same on files. TensorFlow is imported only to convert Keras models.
"""

from .conversion import Conversion, LayerReport, Result, convert
from .errors import ConversionError

__all__ = ["Conversion", "ConversionError", "LayerReport", "Result", "convert"]
