"""The C code compiles strictly and everywhere, needs no C library, and gives the same bits however it is compiled."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compilers import (
    INCLUDE,
    PLUGIN,
    ROOT,
    SMALL,
    SOURCES,
    STRICT,
    UNOPTIMIZED,
    ZIG,
    compile_c,
    core_objects,
    core_sources,
    native_compiler,
)
from models import random_layer

from subbyte.kernels import delegate_path, reference

needs_zig = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="needs the ziglang package")
COMPILERS = [pytest.param(native_compiler(), id="native"), pytest.param(ZIG, id="zig", marks=needs_zig)]
CORTEX_M4 = ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"]
TARGETS = {
    "native": native_compiler(),
    "aarch64": [*ZIG, "-target", "aarch64-linux-gnu"],
    "cortex-m4": [*ZIG, *CORTEX_M4],
}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_plug_in_gives_no_warnings(compiler, tmp_path):
    """The core's are errors below, where it is compiled for size."""
    for name in PLUGIN:
        compile_c([*STRICT, "-O2", "-c", SOURCES / name, "-o", tmp_path / "out.o"], compiler)


def test_the_code_is_formatted():
    formatter = shutil.which(
        "clang-format", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if formatter is None:
        pytest.skip("needs clang-format")
    files = [*SOURCES.glob("*.[ch]"), *INCLUDE.glob("*.h"), *(ROOT / "tests" / "c").glob("*.c")]
    command = [formatter, "--dry-run", "-Werror", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_zig
@pytest.mark.parametrize("target", TARGETS)
def test_the_core_needs_no_c_library(target, tmp_path):
    """Linked with nothing but memcpy, memset and strcmp of our own."""
    objects = core_objects(SMALL, TARGETS[target])
    arguments = [*SMALL, "-nostdlib", "-I", INCLUDE, ROOT / "tests/c/freestanding.c", *objects]
    compile_c([*arguments, "-o", tmp_path / "firmware"], TARGETS[target])


def test_the_core_includes_freestanding_headers_only():
    included = set()
    for path in [*core_sources(), *SOURCES.glob("*.h"), *INCLUDE.glob("*.h")]:
        if path.name not in ("tflite_abi.h", "partition.h"):
            included |= {line.split()[1] for line in path.read_text().splitlines() if line.startswith("#include <")}
    intrinsics = {"<cpuid.h>", "<immintrin.h>", "<arm_neon.h>", "<arm_acle.h>"}
    system = {"<sys/auxv.h>", "<sys/sysctl.h>", "<processthreadsapi.h>"}  # behind `#if`, asked about the processor
    assert included - system - intrinsics <= {"<stddef.h>", "<stdint.h>"}


FLAGS = {
    "O0": UNOPTIMIZED,
    "Os": SMALL,
    # Contraction allowed, on a processor with fused multiply-add: the rounding must not depend on it.
    "contracted": [*STRICT, "-std=gnu11", "-Os", "-fPIC", "-march=native", "-ffp-contract=fast", "-fno-sanitize=all"],
}
BUILDS = [
    *(pytest.param(native_compiler(), flags, id=f"native-{flags}") for flags in FLAGS),
    *(pytest.param(ZIG, flags, id=f"zig-{flags}", marks=needs_zig) for flags in ("O0", "contracted")),
]


@pytest.mark.skipif(sys.platform == "win32", reason="builds a shared library the Unix way")
@pytest.mark.parametrize(("compiler", "flags"), BUILDS)
def test_the_same_bits_however_compiled(compiler, flags, tmp_path):
    path = tmp_path / "core.so"
    # Without the C library, which this process has: zig would first make its own stand-ins of it.
    objects = core_objects(FLAGS[flags], compiler)
    compile_c(["-shared", "-nostdlib", *objects, "-o", path], native_compiler())
    library = ctypes.CDLL(str(path))
    library.subbyte_isa_at.restype = ctypes.c_void_p
    library.subbyte_isa_runs.argtypes = [ctypes.c_void_p]
    rng = np.random.default_rng(20)
    for bits in range(1, 9):
        for _ in range(5):
            layer = random_layer(rng, 77, 35, bits, bias=rng.integers(-(2**20), 2**20, 35).astype(np.int32))
            x = rng.integers(-128, 128, (8, 77)).astype(np.int8)
            index = 0
            while isa := library.subbyte_isa_at(index):
                index += 1
                if library.subbyte_isa_runs(isa):
                    output = np.zeros((8, 35), np.int8)
                    arguments = (x.ctypes.data, 8, output.ctypes.data, isa)
                    pointers = [ctypes.c_void_p(a) if a != 8 else a for a in arguments]
                    library.subbyte_fully_connected(layer.pack(), *pointers)
                    np.testing.assert_array_equal(output, reference.fully_connected(layer, x))


@pytest.mark.skipif(shutil.which("cmake") is None or sys.platform != "linux", reason="needs cmake on Linux")
def test_cmake_builds_without_warnings_and_exports_the_interface_only(tmp_path):
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(tmp_path), "-DSUBBYTE_WERROR=ON"],
        ["cmake", "--build", str(tmp_path)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "kernels" / "libsubbyte.a").is_file()
    if shutil.which("nm"):
        listing = subprocess.check_output(
            ["nm", "-D", "--defined-only", tmp_path / "libsubbyte_delegate.so"], text=True
        )
        names = {line.split()[-1] for line in listing.splitlines()}
        assert {"tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate", "subbyte_check"} <= names
        assert all(name.startswith(("subbyte_", "tflite_plugin_")) for name in names)


@pytest.mark.skipif(shutil.which("cmake") is None or sys.platform != "linux", reason="needs cmake on Linux")
@pytest.mark.parametrize("variables", [{}, {"CC": "/nowhere/cc"}], ids=["none on the path", "one that is not there"])
def test_a_missing_compiler_is_told_in_one_line(variables, tmp_path):
    (tmp_path / "bin").mkdir()
    done = subprocess.run(
        [str(shutil.which("cmake")), "-S", str(ROOT), "-B", str(tmp_path / "build"), "-DCMAKE_MAKE_PROGRAM=true"],
        env={"PATH": str(tmp_path / "bin"), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    heading, *told = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    assert heading.startswith("CMake Error at CMakeLists.txt")
    assert told == ["subbyte needs a C compiler: apt-get install gcc, or name one in CC"]


def test_the_plugin_asks_for_no_tensorflow_symbol():
    if sys.platform != "linux" or not shutil.which("nm"):
        pytest.skip("needs nm on Linux")
    listing = subprocess.check_output(["nm", "-D", "--undefined-only", str(delegate_path())], text=True)
    names = {line.split()[-1].split("@")[0] for line in listing.splitlines()}
    names -= {name for name in names if name.startswith("_")}
    names -= {name for name in names if name.startswith(("pthread_", "sig"))}
    names -= {"clock_gettime", "getpid", "sched_yield"}
    assert names <= {"malloc", "calloc", "free", "getenv", "memcpy", "memset", "strcmp"}
