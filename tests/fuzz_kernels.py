"""Fuzzes the kernels, guided by coverage: the target of `c/fuzz_layer.c` under libFuzzer, which comes with clang.

    python fuzz_kernels.py SECONDS [FOLDER]     goes on where it stopped in FOLDER (default: build/fuzz)

Starts from a layer of every width, decode and section type. `test_kernels_check.py` replays these without libFuzzer.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from compilers import INCLUDE, ROOT, compile_once, core_sources
from models import INT16, random_layer, with_records

from subbyte.schemas import Geometry, Op, PackedLayer, Padding

TARGET = ROOT / "tests" / "c" / "fuzz_layer.c"

# Output channels, inputs, rows: full panels, tails and single ones of each.
SHAPES = [(16, 32, 1), (1, 1, 2), (17, 33, 4), (35, 87, 9), (130, 20, 5), (16, 130, 3), (48, 64, 8)]


def target_input(packed: bytes, x: np.ndarray, misalignment: int = 0) -> bytes:
    """Packed bytes and inputs [rows, K] as the target takes them. Inputs beyond 65535 bytes are repeated ones."""
    values = x.tobytes()[:65535]
    return bytes([len(x) - 1, misalignment]) + len(values).to_bytes(2, "little") + packed + values


def decodes(bits: int, rng: np.random.Generator) -> dict[str, dict]:
    kinds: dict[str, dict] = {
        "step1": {"code_offset": -(1 << (bits - 1))},
        "codebook": {"codebook": rng.integers(-128, 128, 1 << bits).astype(np.int8)},
    }
    if bits < 8:  # 8 bits have no room for odd weights
        kinds["step2"] = {"code_offset": 1 - (1 << bits), "code_step": 2}
    return kinds


def with_sections(layer: PackedLayer, number: int) -> PackedLayer:
    """The layer with short or long multipliers and biases, as `number` says; of every third they share 16 bits."""
    if number % 3 == 2:
        return with_records(layer, "IN_BIAS", np.random.default_rng(number))
    multiplier, bias = layer.multiplier, layer.bias
    if number & 1:
        multiplier = (multiplier.view(np.uint32) & 0x3FFFC000).view(np.float32)
    if number & 2:
        bias = bias * 65537
    elif number & 4:
        bias = bias * 8
    return PackedLayer(**{**vars(layer), "multiplier": multiplier, "bias": bias})


def corpus() -> dict[str, bytes]:
    """The target's inputs by name."""
    rng = np.random.default_rng(0)
    inputs = {}
    for bits in range(1, 9):
        for kind, fields in decodes(bits, rng).items():
            number = len(inputs)
            channels, features, rows = SHAPES[number % len(SHAPES)]
            layer = with_sections(random_layer(rng, features, channels, bits, **fields), number)
            x = rng.integers(-128, 128, (rows, features)).astype(np.int8)
            inputs[f"{bits}bit_{kind}_{channels}x{features}"] = target_input(layer.pack(), x, number % 64)
    for bits, (channels, features, rows) in enumerate((*SHAPES, SHAPES[2]), start=1):
        layer = with_sections(random_layer(rng, features, channels, bits, activation_type=INT16), bits)
        x = rng.integers(-(2**15), 2**15, (rows, features)).astype(np.int16)
        inputs[f"{bits}bit_int16_{channels}x{features}"] = target_input(layer.pack(), x, 2 * bits)
    for bits, layer in enumerate(convolutions(rng), start=1):
        x = rng.integers(-128, 128, (9, 35)).astype(np.int8)  # rows of the image, 5 pixels of 7 channels
        inputs[f"{bits}bit_{layer.op.name.lower()}"] = target_input(layer.pack(), x, bits)
    return inputs


def convolutions(rng: np.random.Generator) -> list[PackedLayer]:
    """With groups, strides, dilation and padding, and depthwise ones; one of each width."""
    layers = []
    for bits in range(1, 9):
        is_depthwise, same = bits % 2 == 0, Padding(bits // 2 % 2)
        geometry = Geometry(
            (1 + bits % 3, 3), (1, 1 + bits % 2), (2, 1), same, groups=7 if is_depthwise else 1 + bits % 3
        )
        features = geometry.kernel[0] * 3 * (1 if is_depthwise else 2)
        op = Op.DEPTHWISE_CONV_2D if is_depthwise else Op.CONV_2D
        layers.append(random_layer(rng, features, 7 * 6, bits, op=op, geometry=geometry, input_zero_point=bits))
    return layers


def write_corpus(folder: Path) -> list[Path]:
    """One file for each input; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, data in corpus().items():
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    return paths


def compile_target(sanitizers: str, sources: list[Path], compiler: list[str]) -> Path:
    """The program. Without optimization: with it, clang takes minutes for the vector loops under UBSan."""
    flags = ["-std=c11", "-O0", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-I", INCLUDE]
    return compile_once([*flags, TARGET, *sources, *core_sources()], compiler)


def main(seconds: int, folder: Path) -> int:
    found = folder / "found"
    found.mkdir(parents=True, exist_ok=True)
    write_corpus(folder / "seeds")
    program = compile_target("fuzzer,address,undefined", [], ["clang"])
    limits = [f"-max_total_time={seconds}", "-max_len=8192", f"-artifact_prefix={folder}/"]
    return subprocess.call([program, *limits, "-print_final_stats=1", found, folder / "seeds"])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "build" / "fuzz"))
