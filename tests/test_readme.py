"""The README's code and commands run as written, and what it points to exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith(f"$ {program}")]


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_examples_train_convert_and_run(tmp_path: Path) -> None:
    train, deploy, quantize = blocks("python")
    trained = run([sys.executable, "-c", f"{train}\n{quantize}"], tmp_path)
    command = str(Path(sys.executable).parent / "convert-to-tflite")
    run([command, "--model=sensor.keras", "--target=int8", "--output=int8.tflite"], tmp_path)
    report, post_training, requantized = (
        run([command, *arguments[1:]], tmp_path) for arguments in commands("convert-to-tflite")
    )
    assert "FAILED" not in report
    assert re.search(r"quant_dense\S* +Keras +[\d,]+ +0 +0 +none +ok", report)
    assert "Outputs against the float model" in post_training
    assert "its largest is the original's on" in requantized
    assert run([sys.executable, "-c", deploy], tmp_path).startswith("[[")
    # The twin goes on from where the float model stands: its first loss is far below that of a new model, ln 3.
    losses = [float(loss) for loss in re.findall(r"loss: ([0-9.]+)\s*$", trained, re.MULTILINE)]
    assert losses[-4] < 0.5


def test_make_knows_the_targets() -> None:
    for arguments in commands("make"):
        subprocess.run([*arguments, "--dry-run"], cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert {arguments[1] for arguments in commands("make")} == {"demo", "test"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
