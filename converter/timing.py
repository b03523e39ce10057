"""How long a model takes in the interpreter, here and now."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .graph import Graph

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
            calls[name] = open_interpreter(tflite).invoke
        except (RuntimeError, ValueError) as error:
            refused[name] = str(error).strip().splitlines()[0]
    # Short rounds, so that on a busy machine most are either wholly disturbed or not at all.
    return (stopwatch or Stopwatch(rounds=101, seconds=0.003)).time_in_turn(calls), refused


def open_interpreter(tflite: bytes, **arguments: Any) -> Any:
    """An interpreter that has its inputs and has run once."""
    from ai_edge_litert.interpreter import Interpreter

    from subbyte import kernels

    make = kernels.Interpreter if Graph.read(tflite).is_packed else Interpreter
    interpreter = make(model_content=tflite, num_threads=1, **arguments)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], _random(rng, details["shape"], np.dtype(details["dtype"])))
    interpreter.invoke()
    return interpreter


def _random(rng: np.random.Generator, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Any codes or real numbers; wider integers are counts or places, for which 0 is always one."""
    if dtype.kind not in "iu":
        return rng.normal(size=shape).astype(dtype)
    if dtype.itemsize > 2:
        return np.zeros(shape, dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
