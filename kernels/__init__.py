"""Run packed models in the stock TFLite interpreter.

    from subbyte import kernels

    interpreter = kernels.Interpreter("model.tflite")

Needs numpy and one of ai-edge-litert, tflite-runtime or tensorflow, which is imported when an Interpreter is made.
"""

from .interpreter import Interpreter
from .library import delegate_path
from .native import isas

__all__ = ["Interpreter", "delegate_path", "isas"]
