"""Runs a packed model of every width in the stock interpreter on an emulated 64-bit Arm machine: `make test-arm64`.

    python tests/arm64_end_to_end.py ARM64_PYTHON

ARM64_PYTHON runs a Python script on such a machine, with ai-edge-litert in it. The first time it may download a few
hundred megabytes, which needs root's rights. The plug-in is cross-compiled from this tree; the outputs that it must
give, for each of its instruction sets, are numpy's, computed here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from compilers import compile_arm64_plug_in
from models import chain, random_layer

from subbyte.kernels import reference

ISAS = ("neon_dotprod", "neon", "portable")

# Arguments: plug-in, model, samples, instruction sets. `benchmarks/arm_interpreter.py` has XNNPACK beside the plug-in.
CHILD = """
import os, sys
import numpy as np
from ai_edge_litert import interpreter as tflite
samples = np.load(sys.argv[3])
for isa in sys.argv[4:]:
    os.environ["SUBBYTE_ISA"] = isa
    interpreter = tflite.Interpreter(
        model_path=sys.argv[2],
        experimental_delegates=[tflite.load_delegate(sys.argv[1])],
        experimental_op_resolver_type=tflite.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    differ = 0
    for rows in (1, 9, 3):
        interpreter.resize_tensor_input(0, [rows, samples["x"].shape[1]])
        interpreter.allocate_tensors()
        interpreter.set_tensor(0, samples["x"][:rows])
        interpreter.invoke()
        output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        differ += int((output != samples["y"][:rows]).sum())
    print(f"{os.uname().machine}  {isa:12}  outputs that differ: {differ}")
    assert differ == 0
"""


def write_case(folder: Path) -> None:
    """A model of sixteen packed layers, each width evenly spaced and by codebook; inputs; numpy's outputs."""
    rng = np.random.default_rng(0)
    widths = [87, *rng.integers(30, 200, 15), 40]
    layers = []
    for i, bits in enumerate([*range(1, 9), *range(1, 9)]):
        codebook = {"codebook": rng.integers(-128, 128, 1 << bits).astype(np.int8)} if i >= 8 else {}
        layers.append(random_layer(rng, int(widths[i]), int(widths[i + 1]), bits, **codebook))
    x = y = rng.integers(-128, 128, (9, widths[0])).astype(np.int8)
    for layer in layers:
        y = reference.fully_connected(layer, y)
    assert len(np.unique(y)) > 50  # an output that says something
    (folder / "model.tflite").write_bytes(chain(layers))
    np.savez(folder / "samples.npz", x=x, y=y)


def main(arm64_python: Path) -> int:
    if not arm64_python.is_file():
        print(f"not run: {arm64_python} runs Python on an emulated Arm machine, and is not there")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_case(folder)
        (folder / "child.py").write_text(CHILD)
        files = [folder / "child.py", compile_arm64_plug_in(folder), folder / "model.tflite", folder / "samples.npz"]
        return subprocess.run([str(arm64_python), *map(str, files), *ISAS], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
