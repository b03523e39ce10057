"""What weights of few bits take on Arm's Ethos-U, as its compiler Vela estimates it: `make accelerator`.

    python -m benchmarks.accelerator                                # every table: minutes, most of them training
    python -m benchmarks.accelerator --write docs/accelerator.md    # and puts them into the page

Trains the paper's networks for a short while at each width, converts them with `--target=int8`, and lets Vela compile
the files: their weights are int8 that keep to few values, which Vela's lossless coder stores in fewer bits. Vela runs
in an environment of its own under build/vela, which this module makes. Models are kept under build/accelerator by what
they were made from. Prints Markdown. No device runs anything; docs/accelerator.md says what is counted.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte import converter
from subbyte.converter import Graph
from subbyte.keras_layers import quantizers
from subbyte.keyword_spotting.data import Dataset
from subbyte.keyword_spotting.models import CONVOLUTIONAL
from subbyte.keyword_spotting.train import TrainingRecipe, train

from .accuracy import code_digest
from .conv_networks import Draft
from .networks import PackedFormat
from .paper.training import data_digest
from .tables import figure, markdown_table, write_section

REQUIREMENT = "ethos-u-vela>=5.0"
CONFIGURATION = "Arm/vela.ini"  # that Vela brings
KB = 1024

#: Enough for the weights to take their distribution, which is all that the compiler sees.
SHORT = TrainingRecipe(windows=16_384, updates=256)
FULL = TrainingRecipe()


@dataclass(frozen=True)
class Processor:
    """An accelerator and the system around it, by Vela's names."""

    title: str
    accelerator: str
    system: str


PROCESSORS = (
    Processor("U55, 128 MACs", "ethos-u55-128", "Ethos_U55_High_End_Embedded"),
    Processor("U55, 256 MACs", "ethos-u55-256", "Ethos_U55_High_End_Embedded"),
    Processor("U65, 256 MACs", "ethos-u65-256", "Ethos_U65_Embedded"),
    Processor("U65, 512 MACs", "ethos-u65-512", "Ethos_U65_Embedded"),
)
#: Where the weights are while the network runs, and Vela's name for that.
MEMORIES = {"flash": "Shared_Sram", "SRAM": "Sram_Only"}


@dataclass(frozen=True)
class Case:
    """A model to compile: a row of the tables.

    Attributes:
        title: of the row.
        model, bits: as `subbyte.keyword_spotting.train.train` takes them.
        quantizer: of the kernels, by its name in `keras_layers.quantizers`; None is the model's own.
        recipe: of its training.
        paper: KB that the paper gives for it, with two outputs; None where it has no such model.
    """

    title: str
    model: str
    bits: int | None = None
    quantizer: str | None = None
    recipe: TrainingRecipe = SHORT
    paper: int | None = None


CASES = (
    Case("M2, 8 bits", "M2", paper=228),
    Case("M2, 8 bits, Linear", "M2", quantizer="Linear", paper=228),
    Case("M3, 5 bits", "M3", paper=142),
    Case("M4, 4 bits", "M4", paper=114),
    Case("M4, 4 bits, Linear", "M4", quantizer="Linear", paper=114),
    Case("M4, 4 bits, trained in full", "M4", recipe=FULL, paper=114),
    Case("the same, 2 bits", "M2", 2),
    Case("the same, 1 bit", "M2", 1),
    Case("M5, 5 and 1 bits", "M5", paper=128),
    Case("M6, 1 bit", "M6", paper=198),
    *(Case(f"TC-ResNet, {bits} bits", "tc_resnet", bits) for bits in (8, 4, 2)),
)


#: Layers of the paper's network, and the next ones whose inputs are a multiple of 32 and outputs of 8.
SHAPES = ((540, 87), (544, 88), (87, 400), (96, 400), (400, 87), (416, 88))
SHAPE_BITS = (8, 4, 1)


@dataclass(frozen=True)
class Layer:
    """What a layer's size follows from: its weights, the bits of each, and its output channels."""

    weights: int
    bits: int
    channels: int


def projected_bytes(layers: Sequence[Layer]) -> float:
    """The paper's projection (arXiv 2207.06920, table 5): bits times weights, and everything else in 8 bits.

    Everything else are five vectors a layer, bias and batch normalisation, and of the last layer the bias alone.
    """
    *hidden, last = layers
    return sum(layer.weights * layer.bits for layer in layers) / 8 + 5 * sum(h.channels for h in hidden) + last.channels


def entropy_bits(codes: NDArray[np.int8]) -> float:
    """Bits that a layer's weights need, all together, in any code that writes one after the other."""
    _, counts = np.unique(codes, return_counts=True)
    return float(-(counts * np.log2(counts / codes.size)).sum())


@dataclass(frozen=True)
class Fallback:
    """An operator that stays on the CPU: its kind, its output, and why."""

    kind: str
    output: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.output!r} ({self.reason})"


@dataclass(frozen=True)
class Estimate:
    """What Vela says of a compiled model.

    Attributes:
        weight_bytes: of the compressed weights.
        constant_bytes: what the accelerator reads of its constants: weights, and 10 bytes a channel for bias and scale.
        sram_bytes: of activations.
        cycles, seconds: of an inference, estimated; a cycle is one of the accelerator's clock.
        npu_operators: that the accelerator runs.
        fallbacks: that it does not.
        file_bytes: of the compiled model: constants, the accelerator's commands, and the container.
    """

    weight_bytes: int
    constant_bytes: int
    sram_bytes: int
    cycles: int
    seconds: float
    npu_operators: int
    fallbacks: tuple[Fallback, ...]
    file_bytes: int

    @classmethod
    def parse(cls, summary: str, output: str, file_bytes: int) -> Estimate:
        """Reads Vela's summary CSV and what it printed with --show-cpu-operations.

        Raises ValueError where either is not of the form that is known.
        """
        rows = list(csv.DictReader(summary.splitlines()))
        try:
            (row,) = rows
            # Of the memories that can hold constants, one does.
            constants = sum(float(row[f"{kind}_memory_used"]) for kind in ("on_chip_flash", "off_chip_flash", "dram"))
            counts = {kind: int(count) for kind, count in re.findall(r"(CPU|NPU) operators = (\d+)", output)}
            found = cls(
                weight_bytes=int(row["total_npu_encoded_weights"]),
                constant_bytes=round(KB * constants),
                sram_bytes=round(KB * float(row["sram_memory_used"])),
                cycles=int(row["cycles_total"]),
                seconds=float(row["inference_time"]),
                npu_operators=counts["NPU"],
                fallbacks=_fallbacks(output),
                file_bytes=file_bytes,
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"Vela's summary has another form than {REQUIREMENT} gives: {error}") from error
        if counts["CPU"] != len(found.fallbacks):
            raise ValueError(f"Vela leaves {counts['CPU']} operators on the CPU and names {len(found.fallbacks)}")
        return found


def _fallbacks(output: str) -> tuple[Fallback, ...]:
    pattern = r"operator: (\w+), ofm: '(.*)'\s*\nReason: (.*)"
    return tuple(Fallback(*(part.strip() for part in found)) for found in re.findall(pattern, output))


class Vela:
    """The compiler, in an environment of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def install(cls, folder: Path, requirement: str = REQUIREMENT) -> Vela:
        """Makes the environment, or uses the one that is there. Raises ValueError where pip fails."""
        vela = cls(folder)
        installed = folder / "requirement.txt"  # written last
        if not installed.is_file() or installed.read_text(encoding="utf-8") != requirement:
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            _run([sys.executable, "-m", "venv", str(folder)], f"cannot make an environment in {folder}")
            _run([*pip, requirement], f"cannot install {requirement}, which needs the package index")
            installed.write_text(requirement, encoding="utf-8")
        return vela

    @property
    def version(self) -> str:
        return self._run(["--version"]).strip()

    def compile(self, tflite: bytes, processor: Processor, memory: str = MEMORIES["flash"]) -> Estimate:
        """Compiles a model. Raises ValueError where Vela refuses it."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "model.tflite").write_bytes(tflite)
            output = self._run(
                [
                    f"--accelerator-config={processor.accelerator}",
                    f"--config={CONFIGURATION}",
                    f"--system-config={processor.system}",
                    f"--memory-mode={memory}",
                    "--show-cpu-operations",
                    f"--output-dir={folder}",
                    str(folder / "model.tflite"),
                ]
            )
            summaries = list(folder.glob("model_summary_*.csv"))
            if len(summaries) != 1:
                raise ValueError(f"Vela wrote {len(summaries)} summaries, not one: {_last_line(output)}")
            compiled = (folder / "model_vela.tflite").stat().st_size
            return Estimate.parse(summaries[0].read_text(encoding="utf-8"), output, compiled)

    def _run(self, arguments: Sequence[str]) -> str:
        return _run([str(self._folder / "bin" / "vela"), *arguments], "Vela failed")


def _run(command: Sequence[str], failure: str) -> str:
    """What a command printed. Raises ValueError, one line, where it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ValueError(f"{failure}: {error}") from error
    if done.returncode:
        raise ValueError(f"{failure}: {_last_line(done.stderr or done.stdout)}")
    return done.stdout


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"


@dataclass(frozen=True)
class Converted:
    """A trained model as files.

    Attributes:
        int8: what Vela takes.
        packed_bytes: of the file for our own kernel.
        layers: in the model's order.
        entropy: bits a weight, the mean over the model's weights of each layer's own.
    """

    int8: bytes
    packed_bytes: int
    layers: tuple[Layer, ...]
    entropy: float

    @classmethod
    def of(cls, model: Any) -> Converted:
        """The layers of a Keras model, or of the file of one."""
        conversion = converter.Conversion.start(model, io="int8")
        int8, packed = conversion.write("int8"), conversion.write("packed")
        layers = tuple(Layer(row.weights, row.weight_bits, row.shape[-1]) for row in packed.layers)
        return cls(int8.tflite, len(packed.tflite), layers, _entropy(int8.tflite))

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def mean_bits(self) -> float:
        """Bits a weight, as they are stored in the packed file."""
        return sum(layer.weights * layer.bits for layer in self.layers) / self.weights


def _entropy(tflite: bytes) -> float:
    """Bits a weight of an int8 model, layer by layer."""
    graph = Graph.read(tflite)
    kernels = [
        weights
        for op in graph.operators
        if graph.kind(op) in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
        and (weights := graph.constant(int(op.inputs[1]))) is not None
    ]
    return sum(entropy_bits(kernel) for kernel in kernels) / sum(kernel.size for kernel in kernels)


class Maker:
    """Trains models, or finds them in `folder` if they were made from the same."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder, self.dataset = folder, dataset
        self._common = {"code": code_digest(), "data": data_digest(dataset), "seed": 0}

    def files(self, case: Case) -> Converted:
        """A case as files, trained now if it never was."""
        return Converted.of(self.path(case))

    def path(self, case: Case) -> Path:
        """The .keras file of a case, trained now if there is none."""
        names = ("model", "bits", "quantizer")
        made_from = self._common | {name: getattr(case, name) for name in names}
        made_from["recipe"] = case.recipe and dataclasses.asdict(case.recipe)
        digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / f"{case.model}-{digest}.keras"
        if not path.is_file():
            model = self._train(case)
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"part-{path.name}")
            model.save(partial)
            partial.replace(path)
        return path

    def _train(self, case: Case) -> Any:
        import tensorflow as tf

        start = None
        if case.model in CONVOLUTIONAL and case.bits is not None:  # every width from the same float model
            start = tf.keras.models.load_model(self.path(dataclasses.replace(case, bits=None)))
        quantizer = case.quantizer and getattr(quantizers, case.quantizer)
        return train(
            case.model, self.dataset, recipe=case.recipe, quantizer=quantizer, bits=case.bits, start=start,
            progress=True,
        ).model  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A case, converted, and what Vela says of it by processor and memory."""

    case: Case
    converted: Converted
    estimates: dict[tuple[Processor, str], Estimate]

    @classmethod
    def measure(cls, case: Case, converted: Converted, vela: Vela) -> Row:
        """Compiles for every processor and memory."""
        keys = [(processor, memory) for memory in MEMORIES for processor in PROCESSORS]
        return cls(case, converted, {key: vela.compile(converted.int8, key[0], MEMORIES[key[1]]) for key in keys})

    def bits(self, processor: Processor) -> float:
        """The compressed bits a weight."""
        return 8 * self.estimates[processor, "flash"].weight_bytes / self.converted.weights


def placement(rows: Sequence[Row]) -> str:
    """A sentence: what the accelerator runs, and what it leaves to the CPU."""
    found = {
        str(fallback): row.case.title
        for row in rows
        for estimate in row.estimates.values()
        for fallback in estimate.fallbacks
    }
    if found:
        return "On the CPU stay " + "; ".join(f"{what} of {title}" for what, title in found.items()) + "."
    counts = [estimate.npu_operators for row in rows for estimate in row.estimates.values()]
    return f"Vela places every operator of every model on the accelerator, {min(counts)} to {max(counts)} of each."


def sizes(rows: Sequence[Row]) -> str:
    """Bytes of the first processor, beside the paper's projection."""
    header = [
        "KB of 1024 bytes", "weights", "paper", "projected", "weights compressed", "all constants", "compiled file",
        "packed file", "SRAM",
    ]  # fmt: skip
    cells = []
    for row in rows:
        estimate = row.estimates[PROCESSORS[0], "flash"]
        measured = [estimate.weight_bytes, estimate.constant_bytes, estimate.file_bytes, row.converted.packed_bytes]
        cells.append(
            [
                row.case.title,
                f"{row.converted.weights:,}",
                f"{row.case.paper}" if row.case.paper else "",
                f"{projected_bytes(row.converted.layers) / KB:.1f}",
                *(f"{count / KB:.1f}" for count in measured),
                f"{estimate.sram_bytes / KB:.2f}",
            ]
        )
    return f"By {PROCESSORS[0].title}:\n\n{markdown_table(header, cells)}\n\n{placement(rows)}"


def widths(rows: Sequence[Row]) -> str:
    """Bits a weight: what the layers have, what their codes need, and what Vela's coder takes."""
    header = ["bits a weight", "stored", "entropy", *(processor.title for processor in PROCESSORS)]
    cells = [
        [
            row.case.title,
            f"{row.converted.mean_bits:.2f}",
            f"{row.converted.entropy:.2f}",
            *(f"{row.bits(processor):.2f}" for processor in PROCESSORS),
        ]
        for row in rows
    ]
    return markdown_table(header, cells)


def times(rows: Sequence[Row], memory: str) -> str:
    """Estimated cycles and microseconds of an inference with the weights in a memory."""

    def cell(estimate: Estimate) -> str:
        return f"{estimate.cycles:,} ({figure(1e6 * estimate.seconds)})"

    header = ["cycles (µs)", *(processor.title for processor in PROCESSORS)]
    cells = [[row.case.title, *(cell(row.estimates[processor, memory]) for processor in PROCESSORS)] for row in rows]
    return markdown_table(header, cells)


def shapes(vela: Vela) -> str:
    """Compressed bits a weight of one layer of random weights, by its inputs and outputs."""
    header = ["one layer, bits a weight", *(f"{bits} bit{'s' * (bits > 1)}" for bits in SHAPE_BITS)]
    cells = []
    for inputs, outputs in SHAPES:
        found = []
        for bits in SHAPE_BITS:
            draft = Draft(PackedFormat(bits))
            tflite = draft.write(draft.dense(draft.input(inputs), outputs), "int8")
            found.append(8 * vela.compile(tflite, PROCESSORS[0]).weight_bytes / (inputs * outputs))
        cells.append([f"{inputs} inputs, {outputs} outputs", *(f"{value:.2f}" for value in found)])
    return f"By {PROCESSORS[0].title}:\n\n{markdown_table(header, cells)}"


SECTIONS: dict[str, Callable[[Sequence[Row]], str]] = {
    "sizes": sizes,
    "widths": widths,
    "flash": functools.partial(times, memory="flash"),
    "sram": functools.partial(times, memory="SRAM"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default=os.environ.get("SUBBYTE_DATA"), help="recordings; default: $SUBBYTE_DATA")
    parser.add_argument("--output_dir", type=Path, default=Path("build/accelerator"), help="of trained models")
    parser.add_argument("--vela_dir", type=Path, default=Path("build/vela"), help="of Vela's environment")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a page with markers, into which the tables go")
    options = parser.parse_args(arguments)
    try:
        vela = Vela.install(options.vela_dir)
        dataset = Dataset.load(options.data_dir, progress=True)
        maker = Maker(options.output_dir, dataset)
        rows = [Row.measure(case, maker.files(case), vela) for case in CASES]
        conditions = f"Vela {vela.version}, an estimate: no device ran this."
        tables = {name: section(rows) for name, section in SECTIONS.items()} | {"shapes": shapes(vela)}
        for name, table in tables.items():
            text = f"{conditions}\n\n{table}"
            print(f"## {name}\n\n{text}\n", flush=True)
            if options.write:
                write_section(options.write, name, text)
    except ValueError as error:
        print(f"accelerator: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
