"""The README's code and commands run as written, and what it points to exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


#: Commands that are not run as they are written, and why.
NOT_RUN = {
    "make demo": "trains for minutes; test_keyword_spotting_pipeline runs the demonstration with fewer updates",
    "make test": "is this suite",
    "pip install '.[train]'": "takes libraries from the network",
    "pip install '.[run]'": "takes libraries from the network",
}

#: Runs the code and the commands of argv[1], [language, text] each, in one process; what they print follows each text.
SESSION = """
import json, subprocess, sys
for number, (language, text) in enumerate(json.loads(sys.argv[1])):
    print(f"\\n#### {number}", flush=True)
    if language == "python":
        exec(compile(text, f"block {number}", "exec"), globals())
    else:
        subprocess.run(text, shell=True, check=True)
    sys.stdout.flush()
"""


def blocks() -> list[tuple[str, str]]:
    """Language and text of every fenced block; of a console block, of every command in it."""
    found = []
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        if language == "console":
            found += [(language, re.sub(r"\s+#.*", "", line).removeprefix("$ ")) for line in text.splitlines()]
        else:
            found.append((language, text))
    return found


def lines_of(report: str) -> list[str]:
    """A report's lines without what another machine or training changes: figures, widths of columns."""
    masked = (re.sub(r"\d[\d,.]*", "#", re.sub(r"[\s─]+", " ", line)).strip() for line in report.splitlines())
    return [line for line in masked if line]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Every block in order, in a folder that was empty: language, text, what it printed."""
    parts = [part for part in blocks() if part[0] in ("python", "console") and part[1] not in NOT_RUN]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-c", SESSION, json.dumps(parts)], cwd=tmp_path_factory.mktemp("empty"),
        env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    printed = re.split(r"^#### \d+$", done.stdout, flags=re.MULTILINE)[1:]
    return [(*part, out) for part, out in zip(parts, printed, strict=True)]


def printed_by(session: list[tuple[str, str, str]], start: str) -> str:
    """What the one block with `start` in its text printed."""
    (out,) = (out for _, text, out in session if start in text)
    return out


def test_the_examples_train_convert_and_run(session: list[tuple[str, str, str]]) -> None:
    report = printed_by(session, "--model=sensor.keras --output=sensor.tflite")
    assert "FAILED" not in report
    assert re.search(r"quant_dense\S* +Keras +[\d,]+ +0 +0 +none +ok", report)
    assert "Outputs against the float model" in printed_by(session, "--model=float.keras")
    assert "its largest is the original's on" in printed_by(session, "--model=int8.tflite")
    assert printed_by(session, "kernels.Interpreter(").strip().startswith("[[")
    # The twin goes on from where the float model stands: its first loss is far below that of a new model, ln 3.
    quantized = printed_by(session, "ql.quantize_model")
    losses = [float(loss) for loss in re.findall(r"loss: ([0-9.]+)\s*$", quantized, re.MULTILINE)]
    assert losses[-4] < 0.5


def test_what_the_command_prints_is_what_the_readme_shows(session: list[tuple[str, str, str]]) -> None:
    shown = next(text for language, text in blocks() if not language and text.startswith("Layers"))
    assert lines_of(shown) == lines_of(printed_by(session, "--model=sensor.keras --output=sensor.tflite"))


def test_no_command_is_left_out() -> None:
    commands = [text for language, text in blocks() if language == "console"]
    assert all(line.strip() for line in commands)
    assert set(NOT_RUN) < set(commands)
    for command in NOT_RUN:
        if command.startswith("make "):
            subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True, timeout=60)
        else:
            extra = command.partition("[")[2].partition("]")[0]
            assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text("utf-8")


def test_targets_and_help_in_the_text_exist() -> None:
    """What stands in the text as `make ...` and `python -m ... --help`."""
    for target in set(re.findall(r"`make ([\w-]+)`", README)):
        subprocess.run(["make", target, "--dry-run"], cwd=ROOT, check=True, capture_output=True, timeout=60)
    for command in set(re.findall(r"`(python -m subbyte[^`]*(?:--help|subbyte))`", README)):
        program = [sys.executable, *command.split()[1:]]
        assert subprocess.run(program, check=True, capture_output=True, timeout=60).stdout, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
