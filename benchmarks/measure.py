"""Times calls in turn, so that whatever else the machine does bears on all of them."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

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
        """Round after round, every call in its turn."""
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
