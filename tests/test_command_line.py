"""The package as it is installed: its version, what it says without its libraries, and how its commands end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import chain, random_layer

import subbyte
from subbyte import extras
from subbyte.converter.errors import one_line
from subbyte.converter.notes import Note, lines
from subbyte.keyword_spotting.features import INPUTS, MEL_BINS, Normalization

ROOT = Path(__file__).parent.parent
SCRIPT = Path(sys.executable).with_name("convert-to-tflite")

#: Makes imports of the modules named in argv[1] fail as if they were not installed, then runs argv[2] as a program.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
missing = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Missing())
program, sys.argv = sys.argv[2], sys.argv[2:]
exec(program)
"""
#: What `pip install 'subbyte[run]'` does not bring; ai-edge-litert needs flatbuffers itself.
NOT_IN_RUN = ",".join(module for module, extra in extras.EXTRAS.items() if extra != "run" and module != "flatbuffers")
COMMAND = "from subbyte.command_line import convert_to_tflite; sys.exit(convert_to_tflite())"
WAKE_WORDS = "import runpy; runpy.run_module('subbyte.keyword_spotting', run_name='__main__', alter_sys=True)"
#: Imports the modules of a package one by one and prints those that cannot be.
WALK = """
import importlib, pkgutil
for module in pkgutil.iter_modules(importlib.util.find_spec(sys.argv[1]).submodule_search_locations):
    if module.name != "__main__":
        try:
            importlib.import_module(f"{sys.argv[1]}.{module.name}")
        except ModuleNotFoundError as error:
            print(module.name, error)
"""


def without(modules: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, modules, program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", [[SCRIPT], [sys.executable, "-m", "subbyte"]], ids=["script", "module"])
def test_version(command: list[str]) -> None:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (f"subbyte {subbyte.__version__}\n", "")


def test_a_folder_of_that_name_does_not_shadow_the_package(tmp_path: Path) -> None:
    (tmp_path / "subbyte" / "kernels").mkdir(parents=True)  # as beside a clone
    told = subprocess.run(
        [sys.executable, "-c", "import subbyte.kernels; print(subbyte.__file__, subbyte.kernels.isas()['portable'])"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == f"{subbyte.__file__} True\n"
    done = subprocess.run([SCRIPT, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("subbyte ")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), ("--model=a.tflite",)], ids=" ".join)
def test_the_command_without_its_libraries_names_the_extra(arguments: tuple[str, ...]) -> None:
    done = without(NOT_IN_RUN, COMMAND, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"convert-to-tflite: [\w.]* needs rich: pip install 'subbyte\[convert\]'\n", done.stderr)


def test_keras_models_without_tensorflow_name_the_extra(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    done = without("tensorflow", COMMAND, f"--model={tmp_path}")
    assert done.returncode == 2
    assert re.fullmatch(r"convert-to-tflite: .* needs tensorflow: pip install 'subbyte\[train\]'\n", done.stderr)


def test_an_import_without_its_libraries_names_the_extra() -> None:
    for hidden, module, extra in (
        (NOT_IN_RUN, "subbyte.keras_layers", "train"),
        (f"{NOT_IN_RUN},flatbuffers", "subbyte.converter", "convert"),
        (f"{NOT_IN_RUN},flatbuffers", "subbyte.reports", "convert"),
    ):
        done = without(hidden, f"import {module}")
        line = rf"ModuleNotFoundError: subbyte.\w+ needs \w+: pip install 'subbyte\[{extra}\]'"
        assert re.fullmatch(line, done.stderr.splitlines()[-1]), done.stderr
        assert "another exception" not in done.stderr


@pytest.mark.parametrize("hidden", [NOT_IN_RUN, "absl"], ids=["run alone", "without absl"])
@pytest.mark.parametrize("package", ["", ".converter", ".keras_layers", ".keyword_spotting", ".reports", ".schemas"])
def test_every_module_imports_without_libraries_or_names_the_extra(package: str, hidden: str) -> None:
    # TensorFlow does not import without absl, and does not say so.
    hidden = hidden if hidden == NOT_IN_RUN else f"{hidden},tensorflow"
    done = without(hidden, WALK, f"subbyte{package}")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert bool(lines) == (package in (".keras_layers", ".converter", ""))
    for line in lines:
        assert re.search(r" subbyte\.[\w.]+ needs \w+: pip install 'subbyte\[(convert|train)\]'$", line), line


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("train --model=M4 --output=a.keras", "kws"),
        ("evaluate --model=a.tflite", "kws"),
        ("report --models a.tflite --output=a.html", "kws"),
        ("demo", "kws"),
        ("listen --model={model} --wav={model}", "listen"),
    ],
)
def test_wake_words_without_their_libraries_name_the_extra(arguments: str, extra: str, tmp_path: Path) -> None:
    model = tmp_path / "kws.tflite"
    model.write_bytes(chain([random_layer(np.random.default_rng(0), INPUTS, 3, 4)]))
    Normalization(np.zeros(MEL_BINS), np.ones(MEL_BINS), ("yes", "no")).save(tmp_path / "kws.npz")
    command, *others = arguments.format(model=model).split()
    done = without(NOT_IN_RUN, WAKE_WORDS, command, *others)
    assert done.returncode == 2
    assert re.fullmatch(rf"keyword_spotting {command}: needs \w+: pip install 'subbyte\[{extra}\]'\n", done.stderr)


def test_the_kernels_need_none_of_it() -> None:
    done = without(NOT_IN_RUN, "from subbyte import kernels; print(kernels.isas()['portable'])")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_every_library_is_in_the_extra_that_is_named() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for module, extra in extras.EXTRAS.items():
        required = [*project["dependencies"], *project["optional-dependencies"][extra]]
        names = [re.split(r"[\[>=<]", line)[0].lower().replace("-", "_") for line in required]
        assert module in [*names, *({"absl_py": "absl"}.get(name) for name in names)], module


def test_notes_are_said_once() -> None:
    notes = [Note("a", "runs in float"), "whole", Note("b", "stays"), Note("c", "runs in float"), "whole"]
    assert lines(notes) == ["a, like 1 more, runs in float", "whole", "b stays"]


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("Cannot load {'a': {'b': '" + "x " * 2000 + "'}} as a layer\n\nmore", "Cannot load {...} as a layer"),
        ("Exception encountered when calling A\n  \x1b[1mshapes do not fit\x1b[0m", "shapes do not fit"),
        ("a\nloc(fused[...]): error: 'tfl.x' op bad\nb", "loc(fused[...]): error: 'tfl.x' op bad"),
        ("code 4wEAAAAAAAAA" + "A" * 900 + "== is no function", "code ... is no function"),
        ("small {'a': 1} stays", "small {'a': 1} stays"),
        ("open {'a': " + "y " * 500, "open {..."),
        ("", "ValueError"),
    ],
)
def test_long_errors_of_frameworks_become_one_short_line(long: str, short: str) -> None:
    assert one_line(ValueError(long)) == short
    assert len(one_line(ValueError("word " * 1000))) < 500
