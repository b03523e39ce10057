"""The firmware example: Keras to C to an emulated Cortex-M, with the numbers of the interpreter and of Keras."""

import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from compilers import ROOT, STRICT
from emulator import CORTEX_M4, CORTEX_M33, Processor, Program
from models import chain, random_layer

from benchmarks.code_size import CORTEX_M55, build, code_bytes, compile_example
from subbyte import kernels
from subbyte.converter.c_source import c_source
from subbyte.kernels.__main__ import cmake_dir, main

EXAMPLE = ROOT / "examples" / "firmware"
FEATURES = 77
PROCESSORS = {"cortex-m4": CORTEX_M4, "cortex-m33": CORTEX_M33}
# Every warning is an error, in the example and in the model too.
FLAGS = [*STRICT, "-Os"]
# What is asked of a build by CMake is that it is whole: optimized builds are compared in test_kernels_build.py.
DEBUG = "-DCMAKE_BUILD_TYPE=Debug"


def build_for(processor: Processor, tflite: bytes, folder: Path) -> Path:
    return build([*processor.flags, *FLAGS], tflite, folder)


def run_firmware(path: Path, processor: Processor, x: np.ndarray, outputs: int) -> np.ndarray:
    program = Program(path, processor)
    assert program.call("model_init") == 0
    scores = np.zeros((len(x), outputs), np.int8)
    for features, row in zip(x, scores, strict=True):
        program.call("model_run", features.tobytes(), row)
    return scores


@pytest.fixture(scope="module")
def every_width() -> bytes:
    """A chain of every width and decode, ragged sizes, with zero points and clamps."""
    rng = np.random.default_rng(1)
    sizes, layers = [FEATURES, *rng.integers(1, 300, 11)], []
    for index, (features, channels) in enumerate(pairwise(sizes)):
        bits = index % 8 + 1
        codebook = {"codebook": rng.integers(-128, 128, 1 << bits).astype(np.int8)} if index in (3, 8) else {}
        zero_points = {"input_zero_point": 5 - index, "output_zero_point": 4 - index}
        layers.append(random_layer(rng, features, channels, bits, clamp=(-100, 110), **zero_points, **codebook))
    return chain(layers)


def run_interpreter(tflite: bytes, x: np.ndarray) -> np.ndarray:
    interpreter = kernels.Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    output = []
    for row in x:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
        interpreter.invoke()
        output.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.stack(output)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_firmware_gives_the_interpreters_numbers(processor, every_width, tmp_path):
    path = build_for(PROCESSORS[processor], every_width, tmp_path)
    x = np.random.default_rng(2).integers(-128, 128, (5, FEATURES)).astype(np.int8)
    expected = run_interpreter(every_width, x)
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(run_firmware(path, PROCESSORS[processor], x, expected.shape[1]), expected)


def test_firmware_gives_the_numbers_of_keras(tmp_path):
    from nets import ready

    from subbyte.converter import convert

    model = ready("paper_like")
    result = convert(model, io="int8")
    details = kernels.Interpreter(model_content=result.tflite)
    details.allocate_tensors()
    (x_scale, x_zero), (y_scale, y_zero) = (
        side[0]["quantization"] for side in (details.get_input_details(), details.get_output_details())
    )
    codes = np.random.default_rng(3).integers(-128, 128, (5, *model.input_shape[1:])).astype(np.int8)
    real = ((codes.astype(np.float32) - x_zero) * x_scale).astype(np.float32)
    scores = run_firmware(build_for(CORTEX_M4, result.tflite, tmp_path), CORTEX_M4, codes, model.output_shape[-1])
    np.testing.assert_array_equal((scores.astype(np.float32) - y_zero) * y_scale, model.predict(real, verbose=0))


def test_firmware_compiles_for_vector_instructions(every_width, tmp_path):
    build([*CORTEX_M55, *FLAGS], every_width, tmp_path)


def test_a_damaged_layer_is_found(every_width, tmp_path):
    build_for(CORTEX_M4, every_width, tmp_path)
    whole = (tmp_path / "model.c").read_text()
    (tmp_path / "model.c").write_text(whole.replace("0x53, 0x55, 0x42, 0x42, 0x01,", "0x53, 0x55, 0x42, 0x42, 0x02,"))
    program = Program(compile_example([*CORTEX_M4.flags, *FLAGS], tmp_path), CORTEX_M4)
    assert program.call("model_init") == 3  # SUBBYTE_WRONG_VERSION


def test_the_code_is_small_and_counted_without_the_model(every_width, tmp_path):
    rng = np.random.default_rng(0)
    large = chain([random_layer(rng, features, channels) for features, channels in pairwise([300] * 12)])
    sizes = [code_bytes(build_for(CORTEX_M4, tflite, tmp_path)) for tflite in (every_width, large)]
    assert abs(sizes[0] - sizes[1]) <= 64
    assert 3000 < sizes[0] < 12 << 10  # a small part of the flash of the smallest Cortex-M4


def cmake(*arguments: object) -> None:
    command = [shutil.which("cmake", path=str(Path(sys.executable).parent)) or "cmake", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_builds_with_cmake(every_width, tmp_path):
    c = c_source(every_width)
    (tmp_path / "model.c").write_text(c.source)
    (tmp_path / "model.h").write_text(c.header)
    cmake(
        "-S",
        EXAMPLE,
        "-B",
        tmp_path / "build",
        f"-DPython3_EXECUTABLE={sys.executable}",
        f"-DMODEL_DIR={tmp_path}",
        DEBUG,
    )
    cmake("--build", tmp_path / "build")
    expected = run_interpreter(every_width, np.zeros((1, FEATURES), np.int8))
    assert subprocess.run([tmp_path / "build" / "firmware"], check=False).returncode == int(expected[0, 0]) % 256


def test_the_kernels_folder_needs_nothing_around_it(tmp_path, capsys):
    main(["--cmake-dir"])
    printed = Path(capsys.readouterr().out.rstrip("\n"))
    assert printed == cmake_dir()
    shutil.copytree(printed, tmp_path / "kernels")
    cmake("-S", tmp_path / "kernels", "-B", tmp_path / "build", "-DSUBBYTE_WERROR=ON", DEBUG)
    cmake("--build", tmp_path / "build")
    assert (tmp_path / "build" / "libsubbyte.a").is_file()


def test_the_command_lists_what_is_compiled_in(capsys):
    main(["--isas"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(kernels.isas())
    assert lines[-1].split(maxsplit=1) == ["portable", "runs here"]
    main(["--delegate"])
    assert Path(capsys.readouterr().out.rstrip("\n")).is_file()
