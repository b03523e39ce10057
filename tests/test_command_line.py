"""The package as it is installed: its version, what it says without its libraries, and how its commands end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import subbyte
from subbyte import extras
from subbyte.converter.errors import one_line
from subbyte.converter.notes import Note, lines

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
#: What `pip install 'subbyte[run]'` does not bring.
NOT_IN_RUN = "absl,flatbuffers,rich,tensorflow,tf_keras,jinja2,matplotlib,soundfile,soxr,scipy"
COMMAND = "from subbyte.command_line import convert_to_tflite; sys.exit(convert_to_tflite())"


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


def test_the_command_without_its_libraries_names_the_extra() -> None:
    done = without(NOT_IN_RUN, COMMAND, "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"convert-to-tflite: \S+ needs \w+: pip install 'subbyte\[convert\]'\n", done.stderr)


def test_keras_models_without_tensorflow_name_the_extra(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    done = without("tensorflow", COMMAND, f"--model={tmp_path}")
    assert done.returncode == 2
    assert re.fullmatch(r"convert-to-tflite: .* needs tensorflow: pip install 'subbyte\[train\]'\n", done.stderr)


@pytest.mark.parametrize(
    ("module", "extra"),
    [("subbyte.converter", "convert"), ("subbyte.keras_layers", "train"), ("subbyte.reports", "convert")],
)
def test_an_import_without_its_libraries_names_the_extra(module: str, extra: str) -> None:
    done = without(NOT_IN_RUN, f"import {module}")
    assert re.match(
        rf"ModuleNotFoundError: .* needs \w+: pip install 'subbyte\[{extra}\]'", done.stderr.splitlines()[-1]
    )
    assert "another exception" not in done.stderr


def test_wake_words_without_their_libraries_name_the_extra() -> None:
    module = "import runpy; runpy.run_module('subbyte.keyword_spotting', run_name='__main__', alter_sys=True)"
    done = without(NOT_IN_RUN, module, "evaluate", "--model=a.tflite")
    assert done.returncode == 2
    assert re.fullmatch(r"keyword_spotting evaluate: .* needs \w+: pip install 'subbyte\[\w+\]'\n", done.stderr)


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
