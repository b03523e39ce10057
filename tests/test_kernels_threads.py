"""The interpreter's num_threads: the same numbers from any number of threads, none for small layers, none left over."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compilers import INCLUDE, ROOT, SOURCES, compile_c, compile_once, core_sources
from models import Model, chain, random_layer

from subbyte import kernels
from subbyte.kernels import reference
from subbyte.schemas import Geometry, Op, PackedLayer, Padding

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated"),
    pytest.mark.skipif(sys.platform == "win32", reason="the plug-in has one thread there"),
]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")

WIDE = random_layer(np.random.default_rng(1), 2048, 2048, 4)  # worth eight threads
SMALL = [random_layer(np.random.default_rng(2), 540, 87, 4), random_layer(np.random.default_rng(3), 87, 400, 3)]


def load(runtime: str, content: bytes, num_threads: int | None, delegate: Any = None) -> Any:
    """The stock interpreter with our delegate alone: XNNPACK, a default one, has threads of its own."""
    if runtime == "tensorflow":
        stock = importlib.import_module("tensorflow").lite
        extra = stock.experimental
    else:
        stock = extra = importlib.import_module("ai_edge_litert.interpreter")
    return stock.Interpreter(
        model_content=content,
        num_threads=num_threads,
        experimental_delegates=[delegate or extra.load_delegate(str(kernels.delegate_path()))],
        experimental_op_resolver_type=extra.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )


def run(interpreter: Any, x: np.ndarray) -> np.ndarray:
    """The output for one input, at the batch size of `x`."""
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def expect(layers: list[PackedLayer], x: np.ndarray) -> np.ndarray:
    for layer in layers:
        x = reference.fully_connected(layer, x)
    return x


def random_input(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


def count_threads() -> int:
    return len(os.listdir("/proc/self/task"))


# Inputs, output channels, bits, rows: cut by channels, or by rows where there are few channels.
SHAPES = [
    (2048, 2048, 4, 1),
    (1000, 4507, 3, 1),
    (777, 1100, 5, 9),
    (65793, 33, 1, 2),
    (65793, 40, 8, 1),
    (300, 17, 4, 1001),
    (90, 200, 2, 350),
    (33, 3, 7, 60001),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_numbers_from_any_number_of_threads(shape):
    features, channels, bits, rows = shape
    rng = np.random.default_rng(shape)
    layer = random_layer(rng, features, channels, bits)
    x = random_input(rng, rows, features)
    expected = expect([layer], x)
    for threads in (1, 2, 3, 8):
        np.testing.assert_array_equal(run(load("litert", chain([layer]), threads), x), expected)


def convolution(channels: int, outputs: int, op: Op, padding: Padding) -> PackedLayer:
    groups = channels if op == Op.DEPTHWISE_CONV_2D else 1
    geometry = Geometry(kernel=(3, 3), stride=(1, 2), padding=padding, groups=groups)
    features = 9 * channels // groups
    return random_layer(np.random.default_rng(channels), features, outputs, 4, op=op, geometry=geometry)


@on_linux
@pytest.mark.parametrize("op", [Op.CONV_2D, Op.DEPTHWISE_CONV_2D])
def test_convolutions_are_cut_where_they_are_large(op):
    layer = convolution(40, 40, op, Padding.SAME)
    model = Model()
    x = model.tensor((1, 8, 8, 40), scale=layer.input_scale, zero_point=layer.input_zero_point)
    content = model.finish([x], [model.layer(x, layer)])
    before = count_threads()
    for threads in (1, 2, 3, 8):
        interpreter = load("litert", content, threads)
        for shape in ((1, 5, 7, 40), (2, 33, 30, 40), (5, 47, 64, 40), (1, 1, 3, 40)):
            values = random_input(np.random.default_rng(shape), *shape)
            np.testing.assert_array_equal(run(interpreter, values), reference.run(layer, values))
        assert count_threads() - before == threads - 1
        del interpreter
        assert count_threads() == before


@on_linux
@pytest.mark.parametrize("runtime", ["litert", "tensorflow"])
@pytest.mark.parametrize(
    ("layers", "num_threads", "helpers"),
    [
        ([WIDE], None, 0),
        ([WIDE], 1, 0),
        ([WIDE], 2, 1),
        ([WIDE], 3, 2),
        ([WIDE, WIDE], 4, 3),
        ([WIDE], 16, 7),  # the layer is worth no more
        (SMALL, 8, 0),
    ],
    ids=["unset", "1", "2", "3", "4", "16", "small"],
)
def test_wide_layers_make_threads_and_small_ones_do_not(runtime, layers, num_threads, helpers):
    load(runtime, chain(SMALL), None)  # whatever the runtime starts when it is used first
    before = count_threads()
    interpreter = load(runtime, chain(layers), num_threads)
    x = random_input(np.random.default_rng(4), 1, layers[0].codes.shape[1])
    np.testing.assert_array_equal(run(interpreter, x), expect(layers, x))
    assert count_threads() - before == helpers
    del interpreter
    assert count_threads() == before


@on_linux
def test_a_batch_makes_a_small_layer_wide():
    before = count_threads()
    interpreter = load("litert", chain(SMALL), 2)
    for rows, helpers in ((1, 0), (100, 1), (1, 1)):
        x = random_input(np.random.default_rng(rows), rows, 540)
        np.testing.assert_array_equal(run(interpreter, x), expect(SMALL, x))
        assert count_threads() - before == helpers


@pytest.mark.parametrize("shares_the_delegate", [False, True], ids=["own delegates", "one delegate"])
def test_interpreters_in_several_threads_at_once(shares_the_delegate):
    from ai_edge_litert.interpreter import load_delegate

    layers = [WIDE, random_layer(np.random.default_rng(5), 2048, 1500, 3)]
    delegate = load_delegate(str(kernels.delegate_path())) if shares_the_delegate else None
    interpreters = [load("litert", chain(layers), threads, delegate) for threads in (2, 3, 2)]
    wrong: list[int] = []

    def loop(number: int) -> None:
        rng = np.random.default_rng(number)
        inputs = [random_input(rng, 1, 2048) for _ in range(3)]
        expected = [expect(layers, x) for x in inputs]
        for _ in range(20):
            for x, y in zip(inputs, expected, strict=True):
                if not np.array_equal(run(interpreters[number], x), y):
                    wrong.append(number)

    threads = [threading.Thread(target=loop, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_interpreter_may_be_destroyed_right_after_use():
    x = random_input(np.random.default_rng(6), 1, 2048)
    expected, content = expect([WIDE], x), chain([WIDE])
    for _ in range(30):
        np.testing.assert_array_equal(run(load("litert", content, 4), x), expected)


def child(code: str, tmp_path: Path, **environment: str) -> str:
    """What a script prints that runs a wide model on 3 threads; `interpreter` and `equal` are defined for it."""
    x = random_input(np.random.default_rng(7), 1, 2048)
    (tmp_path / "model.tflite").write_bytes(chain([WIDE, WIDE]))
    np.savez(tmp_path / "samples.npz", x=x, y=expect([WIDE, WIDE], x))
    prelude = """
        import numpy as np
        from subbyte import kernels
        samples = dict(np.load("samples.npz"))
        interpreter = kernels.Interpreter("model.tflite", num_threads=3)
        interpreter.allocate_tensors()
        output = interpreter.get_output_details()[0]["index"]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], samples["x"])
        interpreter.invoke()
        def equal():
            return np.array_equal(interpreter.get_tensor(output), samples["y"])
    """
    command = [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(code)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_forked_process_computes_without_the_threads(tmp_path):
    code = """
        import os, time
        for _ in range(20):
            time.sleep(0.005)  # the threads sleep
            process = os.fork()
            if process == 0:
                for _ in range(5):
                    interpreter.invoke()
                good = equal()
                interpreter = kernels.Interpreter("model.tflite", num_threads=2)  # and the end of the first one
                interpreter.allocate_tensors()
                os._exit(0 if good else 1)
            interpreter.invoke()
            assert equal()
            assert os.waitpid(process, 0)[1] == 0
        print("equal")
    """
    assert child(code, tmp_path) == "equal"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the counter stands in for glibc's malloc")
@pytest.mark.parametrize("num_threads", [1, 3])
def test_no_allocation_per_invoke(tmp_path, num_threads):
    """Two wide layers of ours ask malloc for as much as one stock ADD: what the interpreter itself does."""
    counter = tmp_path / "count_malloc.so"
    compile_c(["-std=c11", "-O2", "-shared", "-fPIC", ROOT / "tests/c/count_malloc.c", "-o", counter])
    model = Model()
    x = model.tensor([1, 4], scale=0.5)
    (tmp_path / "stock.tflite").write_bytes(model.finish([x], [model.add(x, x, 0.5, 0)]))
    code = f"""
        import ctypes
        calls = ctypes.CDLL(None).malloc_calls
        calls.restype = ctypes.c_ulong
        for name in ("model.tflite", "stock.tflite"):
            interpreter = kernels.Interpreter(name, num_threads={num_threads})
            interpreter.allocate_tensors()
            for _ in range(10):
                interpreter.invoke()
            before = calls()
            for _ in range(1000):
                interpreter.invoke()
            print(calls() - before)
        print(calls())
    """
    ours, stock, total = map(int, child(code, tmp_path, LD_PRELOAD=str(counter)).split())
    assert ours == stock
    assert total > 0  # the counter counts


@pytest.mark.skipif(sys.platform != "linux", reason="ThreadSanitizer comes with Linux compilers")
def test_no_data_race():
    """A C program without Python, under ThreadSanitizer: pools of their own and one that two callers share."""
    flags = ["-std=c11", "-O0", "-g", "-fsanitize=thread", "-pthread", "-I", INCLUDE]
    sources = [ROOT / "tests/c/stress_threads.c", SOURCES / "parallel.c", SOURCES / "threads.c", *core_sources()]
    program = compile_once([*flags, *sources])
    rng = np.random.default_rng(8)
    shapes = [(2048, 1100, 4), (3000, 1500, 3), (70, 40, 8), (60000, 80, 1)]
    layers = [random_layer(rng, *shape).pack() for shape in shapes]
    stream = b"".join(len(layer).to_bytes(4, sys.byteorder) + layer for layer in layers)
    # ThreadSanitizer of older compilers fails where the system spreads addresses wider than it knows.
    fixed = ["setarch", "-R"]
    may_fix = (
        shutil.which(fixed[0]) and subprocess.run([*fixed, "true"], capture_output=True, check=False).returncode == 0
    )
    command = [*(fixed if may_fix else []), program, "25"]
    done = subprocess.run(command, input=stream, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-4000:]
