"""What a model takes in the interpreter, here and now: microseconds an invoke, and memory for activations."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from subbyte import kernels
from subbyte.converter import Graph, Stopwatch, Timing, microseconds
from subbyte.converter.timing import open_interpreter

__all__ = ["Stopwatch", "Timing", "arena_bytes", "machine", "microseconds", "placed_bytes", "processor_name"]


def processor_name() -> str:
    """The name by which the processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> str:
    """Processor, instruction set of the packed kernels and interpreter, for the line under a measurement."""
    isa = os.environ.get("SUBBYTE_ISA") or next(name for name, runs in kernels.isas().items() if runs)
    return f"{processor_name()}, {isa}, ai-edge-litert {version('ai-edge-litert')}, Python {platform.python_version()}"


def arena_bytes(tflite: bytes) -> int:
    """Memory for activations, see `placed_bytes`; a stock model runs without XNNPACK, which hides its own."""
    from ai_edge_litert.interpreter import OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    arguments = {} if Graph.read(tflite).is_packed else {"experimental_op_resolver_type": plain}
    return placed_bytes(open_interpreter(tflite, **arguments), tflite)


def placed_bytes(interpreter: Any, tflite: bytes) -> int:
    """The bytes from the first to the last one of the tensors that an interpreter, which has run, has placed.

    A packed model's scratch memory is in it; that of stock ops, which only they know, is not counted.
    """
    graph = Graph.read(tflite)
    first, last = sys.maxsize, 0
    for details in interpreter.get_tensor_details():
        index = details["index"]
        if index < len(graph.main.tensors):
            info = graph.tensor(index)
            if graph.model.buffers[info.buffer].data is not None or info.isVariable:
                continue
        elif not graph.is_packed or details["dtype"] != np.uint8 or len(details["shape"]) != 1:
            continue  # not the plug-in's: reading what a stock op has not filled ends the process
        try:
            view = interpreter.tensor(index)()
        except ValueError:  # inside a delegate, which keeps it elsewhere
            continue
        if view.nbytes:  # of an empty one the address means nothing
            address = view.__array_interface__["data"][0]
            first, last = min(first, address), max(last, address + view.nbytes)
    return max(0, last - first)
