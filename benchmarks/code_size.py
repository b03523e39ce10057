"""What the firmware example takes on Cortex-M: flash, stack, and counted instructions. No figure is a time.

    python -m benchmarks.code_size                              # prints Markdown
    python -m benchmarks.code_size --write docs/firmware.md     # and puts it into the page

Compiled by the ziglang package, with unused functions left out; executed by the unicorn emulator.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from subbyte.converter import c_source
from subbyte.kernels import reference
from tests.compilers import INCLUDE, ROOT, ZIG, compile_c, core_sources
from tests.emulator import CORTEX_M4, CORTEX_M33, Processor, Program

from .networks import Network, PackedFormat, packed_tflite, random_input, random_layers
from .tables import markdown_table, write_section

PAPER = Network((540, 87, 400, 87, 400, 87, 400, 2))
FORMATS = (*(PackedFormat(bits) for bits in range(8, 0, -1)), PackedFormat(4, codebook=True))
#: With the DSP extension, which a Cortex-M33 has by choice of who makes it.
CORTEX_M33_DSP = replace(CORTEX_M33, flags=(*CORTEX_M33.flags[:-1], f"{CORTEX_M33.flags[-1]}+dsp"))
#: With its vector instructions, which the emulator does not know.
CORTEX_M55 = ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+fp_armv8d16+mve_fp")
#: The compiler still uses the extension where it finds a place for it in the portable loops.
PORTABLE = "-U__ARM_FEATURE_SIMD32"
ALIGNMENT = 64  # of a layer in flash, so that the next one starts a multiple behind it
#: The example's functions and what they call, without a C library.
LINKED = ("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections,-e,main,-u,model_init,-u,model_run")


@dataclass(frozen=True)
class Run:
    """One inference.

    Attributes:
        instructions: executed.
        stack_bytes: deepest stack, of the check of the layers as well.
    """

    instructions: int
    stack_bytes: int


def build(flags: Sequence[str], tflite: bytes, folder: Path) -> Path:
    """The firmware example, with a packed model, compiled in `folder`."""
    c = c_source(tflite)
    (folder / "model.c").write_text(c.source)
    (folder / "model.h").write_text(c.header)
    return compile_example(flags, folder)


def compile_example(flags: Sequence[str], folder: Path) -> Path:
    """The firmware example with the model.c and model.h of `folder`."""
    sources = [ROOT / "examples" / "firmware" / "main.c", folder / "model.c", *core_sources()]
    # -g keeps the symbols. Hosted, as firmware is unless told otherwise: memcpy of a word is a load and not a call.
    options = ["-std=c11", "-g", "-fhosted", "-fno-sanitize=all", *LINKED, "-I", INCLUDE, "-I", folder]
    compile_c([*flags, *options, *sources, "-o", folder / "firmware"], ZIG)
    return folder / "firmware"


def code_bytes(path: Path) -> int:
    """Flash that a firmware example takes without its model: code, constants, and what the compiler brings."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        flash = sum(
            section["sh_size"]
            for section in elf.iter_sections()
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_type"] != "SHT_NOBITS"
        )
        tables = [section for section in elf.iter_sections() if isinstance(section, SymbolTableSection)]
        model = [
            -(-symbol["st_size"] // ALIGNMENT) * ALIGNMENT
            for table in tables
            for symbol in table.iter_symbols()
            if symbol.name.startswith(("layer_", "model_layers"))
        ]
    return flash - sum(model)


def run(path: Path, processor: Processor, network: Network, packed_format: PackedFormat) -> Run:
    """Runs the example once. Raises ValueError where it gives other numbers than `subbyte.kernels.reference`."""
    x = random_input((1, network.widths[0]), np.int8)
    expected = x
    for layer in random_layers(network, packed_format):
        expected = reference.fully_connected(layer, expected)
    program = Program(path, processor, counts=True)
    status = program.call("model_init")
    stack_bytes = program.stack_bytes
    scores = np.zeros_like(expected)
    program.call("model_run", x.tobytes(), scores)
    if status or not np.array_equal(scores, expected):
        raise ValueError(f"{path} gives other numbers than the reference")
    return Run(program.instructions, max(stack_bytes, program.stack_bytes))


def code(folder: Path) -> str:
    """Flash and stack by processor; every width is in."""
    targets: list[tuple[str, tuple[str, ...], Processor | None]] = [
        ("Cortex-M4F", CORTEX_M4.flags, CORTEX_M4),
        ("Cortex-M33 with DSP", CORTEX_M33_DSP.flags, CORTEX_M33_DSP),
        ("Cortex-M33 without", CORTEX_M33.flags, CORTEX_M33),
        ("Cortex-M55", CORTEX_M55, None),
    ]
    rows = []
    for name, flags, processor in targets:
        for level in ("-Os", "-O3"):
            path = build((*flags, level), packed_tflite(random_layers(PAPER, PackedFormat(4))), folder)
            stack = f"{run(path, processor, PAPER, PackedFormat(4)).stack_bytes:,}" if processor else "not run"
            rows.append((f"{name}, {level}", f"{code_bytes(path):,}", stack))
    return markdown_table(("", "flash without the model, bytes", "deepest stack, bytes"), rows)


def inference(folder: Path) -> str:
    """The paper's network on Cortex-M4F by weight format and variant."""
    rows = []
    for packed_format in FORMATS:
        layers = random_layers(PAPER, packed_format)
        row = [packed_format.name, f"{sum(len(layer.pack()) for layer in layers):,}"]
        for flags in ((PORTABLE,), ()):
            path = build((*CORTEX_M4.flags, *flags, "-O3"), packed_tflite(layers), folder)
            instructions = run(path, CORTEX_M4, PAPER, packed_format).instructions
            row += [f"{instructions:,}", f"{instructions / PAPER.weights:.1f}"]
        rows.append(row)
    heads = [f"{PAPER.name}, Cortex-M4F, -O3", "flash for layers, bytes"]
    return markdown_table(
        (*heads, *(f"{variant}, {of}" for variant in ("portable", "dsp") for of in ("instructions", "a weight"))), rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a page with markers, into which the tables go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = f"{code(Path(folder))}\n\n{inference(Path(folder))}"
    print(text)
    if options.write:
        write_section(options.write, "code_size", text)


if __name__ == "__main__":
    main()
