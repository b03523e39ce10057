"""A C compiler for the tests: the machine's own, else the one in the ziglang package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
INCLUDE = ROOT / "kernels" / "include"
SOURCES = ROOT / "kernels" / "src"
PLUGIN = {"arena.c", "parallel.c", "partition.c", "plugin.c", "threads.c"}  # what the core does without
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic"]

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
