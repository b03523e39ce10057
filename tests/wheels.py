"""Runs one packed model in the oldest and the newest interpreters of the package index: does the plug-in's ABI hold?

    python tests/wheels.py [FOLDER]     makes a virtual environment for each wheel in FOLDER (default: build/wheels)

Needs the package index, so it is no part of the ordinary tests. A wheel that does not exist for this Python is skipped
and named. The child processes see the compiled plug-in only, not this package.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
from models import chain, random_layer

from subbyte import kernels
from subbyte.kernels import reference

# pip requirement, module of the interpreter.
WHEELS = [
    ("tflite-runtime==2.14.0 numpy<2", "tflite_runtime.interpreter"),
    ("ai-edge-litert==1.4.0", "ai_edge_litert.interpreter"),
    ("ai-edge-litert==2.0.2", "ai_edge_litert.interpreter"),
    ("ai-edge-litert==2.1.0", "ai_edge_litert.interpreter"),
    ("ai-edge-litert==2.3.0", "ai_edge_litert.interpreter"),
]

# Arguments: interpreter module, plug-in, model, samples.
CHILD = """
import importlib, sys
import numpy as np
tflite = importlib.import_module(sys.argv[1])
delegate = tflite.load_delegate(sys.argv[2])
interpreter = tflite.Interpreter(model_path=sys.argv[3], experimental_delegates=[delegate])
samples = np.load(sys.argv[4])
for rows in (1, 5, 2):
    interpreter.resize_tensor_input(0, [rows, samples["x"].shape[1]])
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, samples["x"][:rows])
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert (output == samples["y"][:rows]).all(), (output, samples["y"][:rows])
"""


def write_case(folder: Path) -> list[str]:
    """A model of three packed layers, with inputs and expected outputs."""
    rng = np.random.default_rng(0)
    layers = [random_layer(rng, 40, 33, 4), random_layer(rng, 33, 20, 3), random_layer(rng, 20, 5, 8)]
    x = y = rng.integers(-128, 128, (5, 40)).astype(np.int8)
    for layer in layers:
        y = reference.fully_connected(layer, y)
    (folder / "model.tflite").write_bytes(chain(layers))
    np.savez(folder / "samples.npz", x=x, y=y)
    return [str(folder / "model.tflite"), str(folder / "samples.npz")]


def try_wheel(requirement: str, module: str, environments: Path, case: list[str]) -> str:
    """'equal', or why not."""
    home = environments / requirement.split()[0].replace("==", "-")
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    install = [str(python), "-m", "pip", "install", "-q", "--only-binary=:all:", *requirement.split()]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        missing = "No matching distribution" in done.stderr
        return "skipped: no wheel for this Python" if missing else f"FAILED to install:\n{done.stderr}"
    command = [str(python), "-c", CHILD, module, str(kernels.delegate_path()), *case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "equal" if done.returncode == 0 else f"FAILED with status {done.returncode}:\n{done.stderr}"


def main(environments: Path) -> int:
    failures = equal = 0
    with tempfile.TemporaryDirectory() as folder:
        case = write_case(Path(folder))
        for requirement, module in WHEELS:
            outcome = try_wheel(requirement, module, environments, case)
            print(f"{requirement:34} {outcome}", flush=True)
            failures += "FAILED" in outcome
            equal += outcome == "equal"
    return 0 if equal and not failures else 1


if __name__ == "__main__":
    default = Path(__file__).parent.parent / "build" / "wheels"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
