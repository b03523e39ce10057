"""The C++ headers register an op that computes packed layers, in either runtime, and refuses what does not fit.

Compiled against stand-ins of the runtimes' headers, which no package brings; TFLITE_INCLUDE_DIR of CMake takes the
official ones.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from compilers import INCLUDE, ROOT, UNOPTIMIZED, ZIG, compile_once, core_objects
from models import INT16, random_layer

from subbyte.kernels import reference
from subbyte.schemas import Geometry, Op, Padding

FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Wno-missing-field-initializers", "-Werror"]
RUNTIMES = {"tflite": [], "micro": ["-DMICRO", "-fno-exceptions"]}


@pytest.fixture(scope="module", params=RUNTIMES)
def program(request) -> Path:
    objects = core_objects(UNOPTIMIZED)
    include = ["-I", INCLUDE, "-I", ROOT / "tests/c/tflite"]
    compiler = [shutil.which("c++")] if shutil.which("c++") else [*ZIG[:-1], "c++"]
    sources = [ROOT / "tests/c/resolver.cc", *objects]
    return compile_once([*FLAGS, *RUNTIMES[request.param], *include, *sources], compiler)


@pytest.fixture(scope="module")
def layer():
    return random_layer(np.random.default_rng(0), 50, 21, 3, input_scale=0.25, output_scale=0.5)


def run(program: Path, folder: Path, op: str, packed: bytes, x: np.ndarray, output_shape: tuple, *scales: float):
    (folder / "packed").write_bytes(packed)
    (folder / "input").write_bytes(x.tobytes())
    shapes = (",".join(map(str, shape)) for shape in (x.shape, output_shape))
    command = [program, op, folder / "packed", folder / "input", *shapes, *scales, x.itemsize]
    return subprocess.run(list(map(str, command)), capture_output=True, check=False)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_op_computes_the_layer(program, layer, rows, tmp_path):
    x = np.random.default_rng(1).integers(-128, 128, (rows, 50)).astype(np.int8)
    done = run(program, tmp_path, "SubbyteFullyConnected", layer.pack(), x, (rows, 21), 0.25, 0.5)
    assert (done.returncode, done.stderr) == (0, b"")
    output = np.frombuffer(done.stdout, np.int8).reshape(rows, 21)
    np.testing.assert_array_equal(output, reference.fully_connected(layer, x))


@pytest.mark.parametrize("rows", [1, 3])
def test_16_bit_activations(program, rows, tmp_path):
    rng = np.random.default_rng(3)
    layer = random_layer(rng, 50, 21, 5, activation_type=INT16)
    x = rng.integers(-(2**15), 2**15, (rows, 50)).astype(np.int16)
    done = run(program, tmp_path, "SubbyteFullyConnected", layer.pack(), x, (rows, 21), 0.5, 0.5)
    assert (done.returncode, done.stderr) == (0, b"")
    output = np.frombuffer(done.stdout, np.int16).reshape(rows, 21)
    np.testing.assert_array_equal(output, reference.fully_connected(layer, x))
    done = run(program, tmp_path, "SubbyteFullyConnected", layer.pack(), x.astype(np.int8), (rows, 21), 0.5, 0.5)
    assert (done.returncode, done.stderr) == (2, b"subbyte: the first input and the output must be int16")


@pytest.mark.parametrize(
    ("op", "name"), [(Op.CONV_2D, "SubbyteConv2D"), (Op.DEPTHWISE_CONV_2D, "SubbyteDepthwiseConv2D")]
)
def test_convolutions(program, op, name, tmp_path):
    rng = np.random.default_rng(2)
    is_depthwise = op == Op.DEPTHWISE_CONV_2D
    geometry = Geometry(kernel=(3, 2), stride=(2, 1), padding=Padding.SAME, groups=5 if is_depthwise else 1)
    layer = random_layer(
        rng, 6 if is_depthwise else 30, 20, 3, op=op, geometry=geometry, input_scale=0.25, output_scale=0.5
    )
    x = rng.integers(-128, 128, (2, 7, 6, 5)).astype(np.int8)
    expected = reference.run(layer, x)
    done = run(program, tmp_path, name, layer.pack(), x, expected.shape, 0.25, 0.5)
    assert (done.returncode, done.stderr) == (0, b"")
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.int8).reshape(expected.shape), expected)


def test_what_does_not_fit_is_refused(program, layer, tmp_path):
    x = np.zeros((1, 50), np.int8)
    packed, dense = layer.pack(), "SubbyteFullyConnected"
    for op, changed, inputs, scales, message in (
        (dense, packed[:-4], x, (0.25, 0.5), "cut or changed"),
        (dense, packed, x[:, :49], (0.25, 0.5), "number of inputs"),
        (dense, packed, x, (0.5, 0.5), "the input's scale"),
        (dense, packed, x, (0.25, 0.25), "the output's scale"),
        ("SubbyteConv2D", packed, x, (0.25, 0.5), "of another kind"),
    ):
        done = run(program, tmp_path, op, changed, inputs, (1, 21), *scales)
        assert done.returncode == 2
        assert message in done.stderr.decode()
        assert done.stderr.startswith(b"subbyte: ")
