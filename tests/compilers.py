"""A C compiler for the tests: the machine's own, else the one in the ziglang package."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
INCLUDE = ROOT / "kernels" / "include"
SOURCES = ROOT / "kernels" / "src"
PLUGIN = {"arena.c", "parallel.c", "partition.c", "plugin.c", "threads.c"}  # what the core does without
TEST_C = ROOT / "tests" / "c"
BUILDS = ROOT / "build" / "tests"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic"]
#: Of object files that go into any program, and of those that go into a library and into firmware alike.
UNOPTIMIZED = ["-std=c11", "-O0", "-fPIC", "-fno-sanitize=all"]
SMALL = [*STRICT, "-Os", "-fPIC", "-ffreestanding", "-fno-builtin", "-fno-sanitize=all"]

ZIG = [sys.executable, "-m", "ziglang", "cc"]


def native_compiler() -> list[str]:
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    return [compiler] if compiler else ZIG


def core_sources() -> list[Path]:
    """What firmware compiles: everything but the plug-in."""
    return sorted(path for path in SOURCES.glob("*.c") if path.name not in PLUGIN)


def compile_c(arguments: list, compiler: list[str] | None = None) -> None:
    """Runs the compiler; a failure raises AssertionError with what it said."""
    command = [*(compiler or native_compiler()), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def compile_once(arguments: list, compiler: list[str] | None = None) -> Path:
    """What `compile_c` makes of arguments without `-o`, kept in build/tests for whoever asks for the same again.

    Tests that run side by side wait for the first of them; the next run of the suite finds it, too, unless a source, a
    header, a flag or the compiler has changed.
    """
    command = [*(compiler or native_compiler()), *map(str, arguments)]
    content = hashlib.sha256("\0".join([*command, version(command[0])]).encode())
    if "-march=native" in command:
        content.update(" ".join(platform.uname()).encode())
    sources = [path for path in map(Path, command[1:]) if path.is_file()]
    for path in [*sources, *sorted(SOURCES.glob("*.h")), *sorted(INCLUDE.glob("*.h")), *sorted(TEST_C.rglob("*.h"))]:
        content.update(path.read_bytes())
    made = BUILDS / (content.hexdigest()[:32] + (".o" if "-c" in arguments else ""))
    BUILDS.mkdir(parents=True, exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            unfinished = made.with_suffix(".part")
            compile_c([*arguments, "-o", unfinished], compiler)
            os.replace(unfinished, made)
    return made


def core_objects(flags: list, compiler: list[str] | None = None) -> list[Path]:
    """The core's object files, one by one from `compile_once`: tests that compile with the same flags share them."""
    return [compile_once([*flags, "-I", INCLUDE, "-c", source], compiler) for source in core_sources()]


@functools.cache
def version(compiler: str) -> str:
    """What a compiler says of itself; of zig, which a Python runs, its package's version."""
    if compiler == ZIG[0]:
        return importlib.metadata.version("ziglang")
    return subprocess.check_output([compiler, "--version"], text=True)


def stand_in() -> Path:
    """A library of the core whose AVX-VNNI uses the same operation of AVX-512, where a machine has only that."""
    return compile_once(["-std=c11", "-O1", "-DSUBBYTE_AVXVNNI_IN_AVX512", "-shared", "-fPIC", *core_sources()])


def compile_arm64_plug_in(folder: Path) -> Path:
    """The plug-in of this tree for 64-bit Arm, in a folder."""
    library = folder / "libsubbyte_delegate.so"
    flags = ["-target", "aarch64-linux-gnu.2.27", "-std=c11", "-O3", "-ffp-contract=off", "-fno-sanitize=all"]
    compile_c([*flags, "-shared", "-fPIC", "-I", INCLUDE, *sorted(SOURCES.glob("*.c")), "-o", library], ZIG)
    return library
