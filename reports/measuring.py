"""What a model takes in the interpreter, here and now: microseconds an invoke, and memory for activations."""

from __future__ import annotations

import itertools
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from subbyte import kernels
from subbyte.converter.graph import Graph

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Seconds a call, one value a round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def minimum(self) -> float:
        return min(self.rounds)

    @property
    def ninth_decile(self) -> float:
        """Nine rounds in ten took no longer."""
        return sorted(self.rounds)[math.ceil(0.9 * len(self.rounds)) - 1]


@dataclass(frozen=True)
class Stopwatch:
    """Measures each call in each of `rounds` rounds for about `seconds`, by `clock`."""

    rounds: int = 31
    seconds: float = 0.01
    clock: Callable[[], float] = time.perf_counter

    def time_in_turn(self, calls: Mapping[Name, Callable[[], object]]) -> dict[Name, Timing]:
        """Round after round, every call in its turn, so that whatever else the machine does bears on all of them."""
        repeats = {name: self._repeats(call) for name, call in calls.items()}
        rounds: dict[Name, list[float]] = {name: [] for name in calls}
        for _ in range(self.rounds):
            for name, call in calls.items():
                self._elapsed(call, repeats[name] // 8 + 1)  # the call before it has taken the caches
                rounds[name].append(self._elapsed(call, repeats[name]) / repeats[name])
        return {name: Timing(tuple(values)) for name, values in rounds.items()}

    def _repeats(self, call: Callable[[], object]) -> int:
        """How many calls take about `seconds`."""
        repeats = 1
        while (elapsed := self._elapsed(call, repeats)) < self.seconds / 2:
            repeats *= 2
        return max(1, round(repeats * self.seconds / elapsed))

    def _elapsed(self, call: Callable[[], object], repeats: int) -> float:
        start = self.clock()
        for _ in itertools.repeat(None, repeats):
            call()
        return self.clock() - start


def processor_name() -> str:
    """As the processor calls itself."""
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


def microseconds(
    models: Mapping[str, bytes], stopwatch: Stopwatch | None = None
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Times `invoke()` of .tflite files in turn, one thread, called from Python, inputs random.

    A packed model runs in the stock interpreter with the plug-in, any other in the stock interpreter as it comes.

    Returns:
        The timings, and of what the interpreter refuses to run the reason, by name.
    """
    calls: dict[str, Callable[[], object]] = {}
    refused = {}
    for name, tflite in models.items():
        try:
            calls[name] = _open(tflite).invoke
        except (RuntimeError, ValueError) as error:
            refused[name] = str(error).strip().splitlines()[0]
    # Short rounds, so that on a busy machine most are either wholly disturbed or not at all.
    return (stopwatch or Stopwatch(rounds=101, seconds=0.003)).time_in_turn(calls), refused


def _open(tflite: bytes, **arguments: Any) -> Any:
    """An interpreter that has its inputs and has run once."""
    from ai_edge_litert.interpreter import Interpreter

    make = kernels.Interpreter if Graph.read(tflite).is_packed else Interpreter
    interpreter = make(model_content=tflite, num_threads=1, **arguments)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for details in interpreter.get_input_details():
        shape, dtype = details["shape"], np.dtype(details["dtype"])
        limits = np.iinfo(dtype) if dtype.kind in "iu" else None
        values = (
            rng.normal(size=shape) if limits is None else rng.integers(limits.min, limits.max, shape, endpoint=True)
        )
        interpreter.set_tensor(details["index"], values.astype(dtype))
    interpreter.invoke()
    return interpreter


def arena_bytes(tflite: bytes) -> int:
    """Memory for activations, see `placed_bytes`; a stock model runs without XNNPACK, which hides its own."""
    from ai_edge_litert.interpreter import OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    arguments = {} if Graph.read(tflite).is_packed else {"experimental_op_resolver_type": plain}
    return placed_bytes(_open(tflite, **arguments), tflite)


def placed_bytes(interpreter: Any, tflite: bytes) -> int:
    """From the first to the last byte of the tensors that an interpreter, which has run, has placed.

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
