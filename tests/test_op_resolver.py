"""The C++ headers register an op that computes packed layers, in either runtime, and refuses what does not fit.

Compiled against stand-ins of the runtimes' headers, which no package brings; TFLITE_INCLUDE_DIR of CMake takes the
official ones.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from compilers import INCLUDE, ROOT, ZIG, compile_c, core_sources
from models import random_layer
from subbyte.kernels import reference

FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Wno-missing-field-initializers", "-Werror"]
RUNTIMES = {"tflite": [], "micro": ["-DMICRO", "-fno-exceptions"]}


@pytest.fixture(scope="module", params=RUNTIMES)
def program(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resolver")
    objects = []
    for source in core_sources():
        objects.append(folder / f"{source.stem}.o")
        compile_c(["-std=c11", "-O1", "-c", source, "-o", objects[-1]])
    include = ["-I", INCLUDE, "-I", ROOT / "tests/c/tflite"]
    compiler = [shutil.which("c++")] if shutil.which("c++") else [*ZIG[:-1], "c++"]
    sources = [ROOT / "tests/c/resolver.cc", *objects]
    compile_c([*FLAGS, *RUNTIMES[request.param], *include, *sources, "-o", folder / "resolver"], compiler)
    return folder / "resolver"


@pytest.fixture(scope="module")
def layer():
    return random_layer(np.random.default_rng(0), 50, 21, 3, input_scale=0.25, output_scale=0.5)


def run(program: Path, folder: Path, packed: bytes, x: np.ndarray, *arguments: object) -> subprocess.CompletedProcess:
    (folder / "packed").write_bytes(packed)
    (folder / "input").write_bytes(x.tobytes())
    command = [program, folder / "packed", folder / "input", len(x), *map(str, arguments)]
    return subprocess.run(list(map(str, command)), capture_output=True, check=False)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_op_computes_the_layer(program, layer, rows, tmp_path):
    x = np.random.default_rng(1).integers(-128, 128, (rows, 50)).astype(np.int8)
    done = run(program, tmp_path, layer.pack(), x, 21, 0.25, 0.5)
    assert (done.returncode, done.stderr) == (0, b"")
    output = np.frombuffer(done.stdout, np.int8).reshape(rows, 21)
    np.testing.assert_array_equal(output, reference.fully_connected(layer, x))


def test_what_does_not_fit_is_refused(program, layer, tmp_path):
    x = np.zeros((1, 50), np.int8)
    packed = layer.pack()
    for changed, inputs, scales, message in (
        (packed[:-4], x, (0.25, 0.5), "cut or changed"),
        (packed, x[:, :49], (0.25, 0.5), "number of inputs"),
        (packed, x, (0.5, 0.5), "the input's scale"),
        (packed, x, (0.25, 0.25), "the output's scale"),
    ):
        done = run(program, tmp_path, changed, inputs, 21, *scales)
        assert done.returncode == 2
        assert message in done.stderr.decode()
        assert done.stderr.startswith(b"SubbyteFullyConnected: ")
