"""What it takes to load one model, measured in a process of its own, so that nothing is warm and no memory lies about.

    python -m benchmarks.fresh {packed,stock} MODEL TINY

prints a `Loading` as JSON. TINY is a model of the same kind with one weight: it is loaded before, so that libraries and
whatever they make once do not count, and shows what an interpreter takes without a network. Linux with glibc.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from subbyte.reports import placed_bytes

from .networks import Model, open_interpreter, random_input


@dataclass(frozen=True)
class Loading:
    """One load of one model.

    Attributes:
        construct, allocate, first_invoke: seconds of the constructor, of allocate_tensors() and of the first invoke().
        heap: bytes from malloc that are in use afterwards and were not before.
        tiny_heap: the same for the tiny model.
        arena: bytes from the first to the last of the tensors that the interpreter placed in its arena.
    """

    construct: float
    allocate: float
    first_invoke: float
    heap: int
    tiny_heap: int
    arena: int

    @property
    def seconds(self) -> float:
        return self.construct + self.allocate + self.first_invoke


def load_fresh(model: Model, tiny: Model) -> Loading:
    """Loads `model` in a new process. Raises subprocess.CalledProcessError where that fails."""
    kind = "packed" if model.packed else "stock"
    command = [sys.executable, "-m", __name__, kind, str(model.path.resolve()), str(tiny.path.resolve())]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, capture_output=True, text=True)
    return Loading(**json.loads(done.stdout))


class MallocInfo(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = (
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),  # in use, mapped one by one
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),  # in use, others
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def heap_bytes() -> int:
    """The bytes from malloc that this process uses."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallocInfo
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def load(path: Path, packed: bool) -> tuple[Any, tuple[float, float, float], int]:
    """The interpreter, the seconds of its three steps and its heap."""
    before, start = heap_bytes(), time.perf_counter()
    interpreter = open_interpreter(path, packed)
    constructed = time.perf_counter()
    interpreter.allocate_tensors()
    allocated = time.perf_counter()
    (details,) = interpreter.get_input_details()
    interpreter.set_tensor(details["index"], random_input(details["shape"], details["dtype"]))
    ready = time.perf_counter()
    interpreter.invoke()
    invoked = time.perf_counter()
    seconds = (constructed - start, allocated - constructed, invoked - ready)
    return interpreter, seconds, heap_bytes() - before


def main() -> None:
    kind, path, tiny = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    packed = kind == "packed"
    kept = [load(tiny, packed)]  # warms up
    kept.append(load(tiny, packed))
    interpreter, seconds, heap = load(path, packed)
    print(json.dumps(asdict(Loading(*seconds, heap, kept[-1][2], placed_bytes(interpreter, path.read_bytes())))))


if __name__ == "__main__":
    main()
