"""Loads a written model once, so that no file is handed out that no interpreter takes."""

from __future__ import annotations

from subbyte.kernels import Interpreter

from .errors import ConversionError

#: What the interpreter says of ops that the user has to bring along, with the original as with what is made from it.
_BROUGHT_ALONG = ("unresolved custom op", "Select TensorFlow op")


def check_loads(tflite: bytes, name: str) -> None:
    """Loads the model and plans its memory, as its users will; `name` is the source's, for the message.

    A model with custom ops or TensorFlow's own cannot be tried to its end, as its source cannot, and passes.

    Raises:
        ConversionError: the interpreter refuses it.
    """
    try:
        Interpreter(model_content=tflite).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        if not any(what in reason for what in _BROUGHT_ALONG):
            raise ConversionError(
                f"{name} cannot be converted: the interpreter does not load what it becomes ({reason})"
            ) from error
