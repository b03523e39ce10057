"""How the sources are built, whatever they compute: no function is longer than a screen."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (
    "benchmarks",
    "converter",
    "keras_layers",
    "kernels",
    "keyword_spotting",
    "reports",
    "schemas",
    "src/subbyte",
)
MOST = 45  # lines of a function, its docstring included


def python_functions(source: str) -> Iterator[tuple[str, int]]:
    """The name and the lines of each function, at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def c_functions(source: str) -> Iterator[tuple[str, int]]:
    """The name and the lines of each function, in the format of clang-format: both ends stand at the line's start."""
    for match in re.finditer(r"^\w[^;{}=]*?(\w+)\([^;{}]*\) \{\n.*?^\}", source, re.MULTILINE | re.DOTALL):
        yield match[1], match[0].count("\n") + 1


def long_functions(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*")):
        read = {".py": python_functions, ".c": c_functions, ".h": c_functions}.get(path.suffix)
        if read is not None and not path.is_symlink():
            source = path.read_text(encoding="utf-8")
            found += [f"{path.name}: {name}, {lines} lines" for name, lines in read(source) if lines > MOST]
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_is_longer_than_a_screen(folder: str) -> None:
    assert long_functions(ROOT / folder) == []


def test_long_functions_are_found(tmp_path: Path) -> None:
    python, c = "    x = 1\n" * (MOST - 1), "  call(x);\n" * (MOST - 2)
    (tmp_path / "fits.py").write_text(f"class A:\n  def f():\n{python}")
    (tmp_path / "fits.c").write_text(f"static int f(int x,\n{' ' * 13}int y) {{\n{c[:-11]}}}\n")
    assert long_functions(tmp_path) == []
    (tmp_path / "long.py").write_text(f"class A:\n  def f():\n{python}    y = 2\n")
    (tmp_path / "long.c").write_text(f"int g(void);\n\nstatic int f(int x) {{\n{c}  if (x) {{\n  }}\n}}\n")
    assert long_functions(tmp_path) == ["long.c: f, 47 lines", "long.py: f, 46 lines"]
