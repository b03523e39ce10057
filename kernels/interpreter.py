"""The stock interpreter with the plug-in loaded."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from .library import delegate_path


# A class to its callers: it takes the place of the stock one, whose instance it returns.
def Interpreter(
    model_path: str | os.PathLike[str] | None = None,
    model_content: bytes | None = None,
    num_threads: int | None = None,
    **stock: Any,
) -> Any:
    """A stock TFLite interpreter that also runs packed layers.

    Args:
        model_path, model_content: the .tflite file or its bytes; one of the two.
        num_threads: at most so many for an op, stock or packed. A packed layer takes a second thread from a million
            multiplications on, an eighth of that where it is depthwise, so small ones have none but the caller's; a
            convolution takes one for at least 64 positions of its output. None: one thread.
        **stock: every other argument of the stock interpreter.

    Returns:
        The `Interpreter` of ai-edge-litert, tflite-runtime or tensorflow, the first that is installed. It keeps the
        plug-in loaded for as long as it lives. `allocate_tensors()` raises RuntimeError for a damaged packed layer.
    """
    stock_interpreter, load_delegate = _runtime()
    delegates = [load_delegate(str(delegate_path())), *(stock.pop("experimental_delegates", None) or [])]
    return stock_interpreter(
        model_path=None if model_path is None else os.fspath(model_path),
        model_content=model_content,
        num_threads=num_threads,
        experimental_delegates=delegates,
        **stock,
    )


def _runtime() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The stock interpreter class and `load_delegate`."""
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite"):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
        else:
            return module.Interpreter, getattr(module, "experimental", module).load_delegate
    raise ImportError("no TFLite interpreter is installed: pip install 'subbyte[run]'")
