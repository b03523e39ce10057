"""Damages the packed layers of a model again and again and runs it in the stock interpreter.

    python fuzz_interpreter.py ROUNDS     prints "accepted rejected"

Each model must run or raise RuntimeError in `allocate_tensors()`. The third possibility is a crash, so
`test_kernels_plugin.py` starts this in a process of its own.
"""

import sys

import numpy as np
from models import Model, random_layer

from subbyte import kernels
from subbyte.schemas import ENUMS, HEADER, PackedLayer


def damaged(packed: bytes, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(packed, np.uint8).copy()
    reach = HEADER.itemsize if rng.random() < 0.7 else changed.size
    places = rng.integers(0, reach, rng.integers(1, 4))
    changed[places] = rng.choice([0, 1, 2, 127, 128, 255, int(rng.integers(256))], places.size)
    if rng.random() < 0.2:
        changed = changed[: rng.integers(1, changed.size)]
        if changed.size >= HEADER.itemsize and rng.random() < 0.5:
            changed[: HEADER.itemsize].view(HEADER)["total_bytes"] = changed.size
    return changed.tobytes()


def build(layers: list, victim: int, packed: bytes) -> bytes:
    model = Model()
    first = x = model.input_for(layers[0])
    for index, layer in enumerate(layers):
        x = model.layer(x, layer, packed if index == victim else None)
    return model.finish([first], [model.add(x, x, 0.5, 0)])


def random_layers(rng: np.random.Generator, activation_type: int) -> list[PackedLayer]:
    sizes = [(20, 35, 4), (35, 18, 3), (18, 6, 8)]
    return [random_layer(rng, *size, activation_type=activation_type) for size in sizes]


def main(rounds: int) -> None:
    rng = np.random.default_rng(0)
    accepted = 0
    networks = [random_layers(rng, kind) for kind in ENUMS["ActivationType"]]
    for number in range(rounds):
        layers = networks[number % len(networks)]
        victim = int(rng.integers(len(layers)))
        content = build(layers, victim, damaged(layers[victim].pack(), rng))
        interpreter = kernels.Interpreter(model_content=content)
        try:
            interpreter.allocate_tensors()
        except RuntimeError:
            continue
        interpreter.set_tensor(0, rng.integers(-128, 128, (1, 20)).astype(layers[0].activation_dtype))
        interpreter.invoke()
        accepted += 1
    print(accepted, rounds - accepted)


if __name__ == "__main__":
    main(int(sys.argv[1]))
