"""Whole networks in the stock interpreter on an emulated 64-bit Arm core: instructions an invoke, packed and stock.

    python -m benchmarks.arm_interpreter ARM64_PYTHON                        # prints Markdown
    python -m benchmarks.arm_interpreter ARM64_PYTHON --cores cortex-a72 --networks M4 --bits 4

ARM64_PYTHON runs a Python script on such a core with ai-edge-litert in it, as `make test-arm64` has it. It reads the
core's name from the environment variable ARM64_CPU, and writes the number of instructions that the script took into the
file that ARM64_COUNT names. Stock models run on the interpreter's own XNNPACK, packed ones with the plug-in beside it,
compiled from this tree. A packed model has to give what the stock interpreter gives for the same weights in int8.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.compilers import compile_arm64_plug_in

from .conv_networks import ConvNetwork, ds_cnn, float_tflite, resnet8, tc_resnet8
from .networks import PackedFormat
from .tables import markdown_table, write_section

CORES = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1")
WIDTHS = tuple(range(8, 0, -1))
#: Invokes of the two runs whose difference is counted.
FEW, MANY = 5, 25

#: Arguments: model, invokes, and for a packed model the plug-in.
CHILD = """
import sys
import numpy as np
from ai_edge_litert import interpreter as tflite
delegates = [tflite.load_delegate(plug_in) for plug_in in sys.argv[3:]]
interpreter = tflite.Interpreter(model_path=sys.argv[1], num_threads=1, experimental_delegates=delegates)
interpreter.allocate_tensors()
x, y = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
rng = np.random.default_rng(0)
codes = rng.integers(-128, 128, x["shape"])
interpreter.set_tensor(x["index"], (codes / 128 if x["dtype"] == np.float32 else codes).astype(x["dtype"]))
for _ in range(int(sys.argv[2])):
    interpreter.invoke()
print("output", interpreter.get_tensor(y["index"]).tobytes().hex())
"""

_TITLE = (
    "Thousands of instructions an invoke, one thread, through Python; in brackets, how many times fewer than int8."
    " Packed outputs equal those of the same weights in stock int8."
)

#: A network with weights of some bits, as a .tflite for a target of the converter.
Write = Callable[[int, str], bytes]


def _trained_like(name: str) -> Write:
    """A model of `subbyte.keyword_spotting`, untrained, with int8 inputs and outputs."""

    def write(bits: int, target: str) -> bytes:
        import tensorflow as tf

        from subbyte import keras_layers as ql
        from subbyte.converter import convert
        from subbyte.keyword_spotting import models

        tf.keras.utils.set_random_seed(0)
        model = models.model(name, bits=bits)
        model(tf.random.normal((64, *model.inputs[0].shape[1:])), training=True)  # ranges and statistics
        ql.set_stage(model, 2)
        return convert(model, target=target, io="int8").tflite

    return write


def _drafted(network: ConvNetwork) -> Write:
    return lambda bits, target: network.write(PackedFormat(bits), target)


NETWORKS: dict[str, Write] = {
    "M4": _trained_like("M4"),
    "DS-CNN": _drafted(ConvNetwork("DS-CNN", ds_cnn)),
    "TC-ResNet8": _drafted(ConvNetwork("TC-ResNet8", tc_resnet8)),
    "ResNet-8": _drafted(ConvNetwork("ResNet-8", resnet8)),
    "tc_resnet_wide": _trained_like("tc_resnet_wide"),
}


@dataclass(frozen=True)
class Machine:
    """An emulated core.

    Attributes:
        python: runs a script on it.
        core: its name, for ARM64_CPU.
        folder: for the files of a run.
        plug_in: the packed kernels, compiled for it.
    """

    python: Path
    core: str
    folder: Path
    plug_in: Path

    def run(self, model: bytes, invokes: int, packed: bool) -> tuple[int, str]:
        """Instructions of a process that loads the model and runs it so many times, and the output at last.

        Raises RuntimeError where it fails, with what it said.
        """
        script, path, count = self.folder / "child.py", self.folder / "model.tflite", self.folder / "count"
        script.write_text(CHILD)
        path.write_bytes(model)
        command = [str(self.python), str(script), str(path), str(invokes), *([str(self.plug_in)] if packed else [])]
        # Python's own work must be the same in both runs.
        environment = os.environ | {"ARM64_CPU": self.core, "ARM64_COUNT": str(count), "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        output = next((line for line in done.stdout.splitlines() if line.startswith("output ")), None)
        if done.returncode or output is None:
            raise RuntimeError(f"{self.python} on {self.core}: {done.stderr.strip()[-500:] or done.stdout[-500:]}")
        return int(count.read_text()), output

    def instructions(self, model: bytes, packed: bool = False) -> float:
        """Of one invoke, through Python."""
        (few, _), (many, _) = (self.run(model, invokes, packed) for invokes in (FEW, MANY))
        return (many - few) / (MANY - FEW)


def measure(machine: Machine, write: Write, widths: Sequence[int]) -> dict[str, float]:
    """Instructions an invoke by format, stock ones first.

    Raises ValueError where a packed model gives another output than its weights in stock int8.
    """
    int8 = write(8, "int8")
    counts = {"float32": machine.instructions(float_tflite(int8)), "int8": machine.instructions(int8)}
    for bits in widths:
        packed = write(bits, "packed")
        if machine.run(packed, 1, packed=True)[1] != machine.run(write(bits, "int8"), 1, packed=False)[1]:
            raise ValueError(f"packed {bits} gives other outputs than stock int8 on {machine.core}")
        counts[f"packed {bits}"] = machine.instructions(packed, packed=True)
    return counts


def table(found: Mapping[tuple[str, str], Mapping[str, float]]) -> str:
    """Thousands of instructions by (network, core) and format; in brackets, how many times fewer than stock int8."""
    formats = list(next(iter(found.values())))

    def cell(counts: Mapping[str, float], name: str) -> str:
        text = f"{counts[name] / 1000:,.1f}"
        return text if name == "int8" else f"{text} ({counts['int8'] / counts[name]:.2f})"

    rows = [
        [f"{network}, {core}", *(cell(counts, name) for name in formats)] for (network, core), counts in found.items()
    ]
    return markdown_table(["network, core", *formats], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", type=Path, metavar="ARM64_PYTHON", help="runs a Python script on an emulated core")
    parser.add_argument("--cores", nargs="+", choices=CORES, default=CORES)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--bits", nargs="+", type=int, choices=WIDTHS, default=WIDTHS, metavar="BITS")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the table between its `arm_interpreter` markers"
    )
    arguments = parser.parse_args()
    if not os.access(arguments.python, os.X_OK):
        parser.error(f"{arguments.python} cannot be run: give a Python for arm64")
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plug_in = compile_arm64_plug_in(folder)
        for network in arguments.networks:
            for core in arguments.cores:
                machine = Machine(arguments.python, core, folder, plug_in)
                found[network, core] = measure(machine, NETWORKS[network], arguments.bits)
    text = f"{_TITLE}\n\n{table(found)}"
    print(text)
    if arguments.write:
        write_section(arguments.write, "arm_interpreter", text)


if __name__ == "__main__":
    main()
