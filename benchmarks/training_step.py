"""What a training step costs: the quantized model against the float model of the same shape, measured in turn.

    python benchmarks/training_step.py                            # Keras 3
    TF_USE_LEGACY_KERAS=1 python benchmarks/training_step.py      # tf-keras

Prints a Markdown table. A ratio is the median, over the rounds, of the quantized model's time for some steps to the
float model's for as many, one measured right after the other; so other work on the machine bears on both.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from importlib.metadata import version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from subbyte import keras_layers as ql
from subbyte.keyword_spotting import models

CLASSES = 7


class Trainee:
    """A compiled model and one batch of random data; `first` is the time of its first step, tracing and compiling."""

    def __init__(self, name: str, batch: int, stage: int, jit_compile: bool) -> None:
        self.model = models.model(name, classes=CLASSES)
        if stage == 2:
            ql.set_stage(self.model, 2)
        self.model.compile(
            optimizer=tf.keras.optimizers.Adam(1e-3),
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit_compile,
        )
        rng = np.random.default_rng(0)
        self.x = tf.constant(rng.standard_normal((batch, self.model.input_shape[-1]), np.float32))
        self.y = tf.constant(rng.integers(0, CLASSES, batch))
        self.first = self.seconds(1)

    def seconds(self, steps: int) -> float:
        """Seconds a step."""
        start = time.perf_counter()
        for _ in range(steps):
            self.model.train_on_batch(self.x, self.y)
        return (time.perf_counter() - start) / steps


def compare(name: str, batch: int, stage: int, jit_compile: bool, rounds: int, steps: int) -> str:
    """A row of the table."""
    reference, quantized = Trainee("M0", batch, 1, jit_compile), Trainee(name, batch, stage, jit_compile)
    for trainee in (reference, quantized):
        trainee.seconds(steps)
    pairs = [(reference.seconds(steps), quantized.seconds(steps)) for _ in range(rounds)]
    ratio = statistics.median(after / before for before, after in pairs)
    float_ms, quantized_ms = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    return (
        f"| {stage} | {batch} | {jit_compile} | {float_ms:.2f} | {quantized_ms:.2f} | {ratio:.2f} "
        f"| {reference.first:.1f} | {quantized.first:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="M4", help="a quantized model of subbyte.keyword_spotting.models")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--stage", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--jit", choices=["on", "off", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="steps in a round")
    options = parser.parse_args()
    legacy = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
    keras = f"tf-keras {version('tf-keras')}" if legacy else f"Keras {version('keras')}"
    print(f"{options.model} against M0; TensorFlow {tf.__version__}, {keras}, {platform.machine()}\n")
    print("| stage | batch | jit_compile | M0, ms a step | quantized, ms | ratio | M0, first step, s | quantized, s |")
    print("|---|---|---|---|---|---|---|---|")
    for jit_compile in {"on": [True], "off": [False], "both": [False, True]}[options.jit]:
        for stage in options.stage:
            for batch in options.batch:
                print(compare(options.model, batch, stage, jit_compile, options.rounds, options.steps), flush=True)
                tf.keras.backend.clear_session()


if __name__ == "__main__":
    main()
