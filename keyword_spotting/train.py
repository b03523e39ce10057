"""Trains the keyword models on a dataset: the paper's two stages at a small scale.

Stage 1 takes most updates while a cosine lowers the learning rate; stage 2, about 7 % of the updates, quantizes
everything else at the lowest rate (arXiv 2207.06920, sections 4.2, 4.3 and 6.3). M0 to M6 start from random weights; a
convolutional model with bits starts from its float form, which is trained first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .augment import Augmentation, training_windows
from .data import Dataset
from .features import Normalization
from .models import CONVOLUTIONAL, is_float, model, quantized

if TYPE_CHECKING:
    import tensorflow as tf


# By the quantizer's name. The latent weights of Tanh are as wide as 0.85, those of a float layer here about 0.05, so
# that Tanh needs longer steps for the same change.
LEARNING_RATES = {"float": 4e-3, "Tanh": 1.2e-2, "Linear": 4e-3}


@dataclass(frozen=True)
class Recipe:
    """Everything that training depends on besides the model and the data; chosen on the dev split.

    Attributes:
        windows: training windows, made once.
        epochs: passes over them, both stages together.
        second_stage: share of the epochs that stage 2 takes, at least one epoch; the float model has no stage 2 and
            spends them all on stage 1.
        batch_size: windows an update.
        learning_rate: Adam's at the start of stage 1; None takes the one of LEARNING_RATES for the kind of weights.
        final_rate: its share that is left at the end of stage 1 and throughout stage 2.
        label_smoothing: of the cross-entropy.
        dropout: see `models.model`.
        augmentation: how windows are made.
        xla: compile the training step; worth the seconds it takes except for a few epochs. Convolutional models are
            never compiled: XLA's depthwise convolutions take five times as long on a processor.
        fine_tuning: share of the epochs that a quantized model which starts from a float one trains, at least two.
        fine_tuning_rate: share of the learning rate for that.
        calibration: windows from which such a model takes its ranges.
    """

    windows: int = 65_536
    epochs: int = 20
    second_stage: float = 0.07
    batch_size: int = 512
    learning_rate: float | None = None
    final_rate: float = 0.01
    label_smoothing: float = 0.1
    dropout: float = 0.1
    augmentation: Augmentation = field(default_factory=Augmentation)
    xla: bool = True
    fine_tuning: float = 0.3
    fine_tuning_rate: float = 0.25
    calibration: int = 512


@dataclass(frozen=True)
class Trained:
    """A trained model and what must travel with it.

    Attributes:
        model: Keras model from normalised features [batch, 540] to logits [batch, classes].
        normalization: of the raw features.
        seconds: that training took.
    """

    model: tf.keras.Model
    normalization: Normalization
    seconds: float

    def save(self, path: str | Path) -> None:
        """Writes the model to `path` (.keras) and the normalization, which names the keywords, beside it (.npz)."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.model.save(path)
        self.normalization.save(Path(path).with_suffix(".npz"))


def train(
    name: str,
    dataset: Dataset,
    seed: int = 0,
    epochs: int | None = None,
    recipe: Recipe | None = None,
    quantizer: Callable[..., Any] | None = None,
    bits: int | None = None,
    progress: bool = False,
    start: tf.keras.Model | None = None,
) -> Trained:
    """Trains one model on the training split.

    Args:
        name: M0 to M6, ds_cnn or tc_resnet.
        dataset: where windows come from.
        seed: of the windows, the initial weights and their order.
        epochs: in place of the recipe's.
        recipe: default: `Recipe()`.
        quantizer: see `models.model`.
        bits: see `models.model`.
        progress: shows a bar.
        start: for a convolutional model with bits, the trained float model; without it one is trained first.

    Raises:
        ValueError: no such model, or fewer epochs than its stages need.
    """
    import tensorflow as tf

    recipe, begin = recipe or Recipe(), time.perf_counter()
    epochs = recipe.epochs if epochs is None else epochs
    second_stage_epochs(name, epochs, recipe.second_stage, bits)
    tf.keras.utils.set_random_seed(seed)
    starts_in_float = name in CONVOLUTIONAL
    network = start if starts_in_float else model(name, dataset.classes, quantizer, bits, recipe.dropout)
    raw, labels = training_windows(dataset.train, recipe.windows, dataset.classes, recipe.augmentation, seed)
    normalization = Normalization.fit(raw, dataset.keywords)
    inputs, targets = normalization(raw), tf.one_hot(labels, dataset.classes).numpy()
    rate = recipe.learning_rate or learning_rate(name, quantizer, bits)

    def fit(network: tf.keras.Model, title: str, epochs: int, stage_two: int, rate: float) -> None:
        updates = (epochs - stage_two) * -(-len(inputs) // recipe.batch_size)
        decay = tf.keras.optimizers.schedules.CosineDecay(rate, updates, alpha=recipe.final_rate)
        loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
        xla = recipe.xla and name not in CONVOLUTIONAL
        network.compile(optimizer=tf.keras.optimizers.Adam(decay), loss=loss, jit_compile=xla)
        callbacks = [_two_stages(stage_two)] if stage_two else []
        with _bar(f"Training {title}", epochs) if progress else nullcontext(lambda: None) as advance:
            callbacks.append(tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: advance()))
            network.fit(inputs, targets, recipe.batch_size, epochs, verbose=0, callbacks=callbacks)

    if starts_in_float and network is None:
        network = model(name, dataset.classes, dropout=recipe.dropout)
        fit(network, name, epochs, 0, rate)
    elif not starts_in_float:
        fit(network, name, epochs, second_stage_epochs(name, epochs, recipe.second_stage, bits), rate)
    if starts_in_float and not is_float(name, bits):
        network = quantized(network, bits or 8, quantizer, inputs[: recipe.calibration])
        epochs = max(2, round(recipe.fine_tuning * epochs))
        stage_two = max(1, round(recipe.second_stage * epochs))
        fit(network, f"{name} at {bits} bits", epochs, stage_two, rate * recipe.fine_tuning_rate)
    return Trained(network, normalization, time.perf_counter() - begin)


def learning_rate(name: str, quantizer: Callable[..., Any] | None = None, bits: int | None = None) -> float:
    """Adam's first learning rate for a model and its kernel quantizer; an unknown quantizer trains as Linear does."""
    if is_float(name, bits) or name in CONVOLUTIONAL:
        return LEARNING_RATES["float"]
    kind = "Tanh" if quantizer is None else getattr(quantizer, "__name__", "")
    return LEARNING_RATES.get(kind, LEARNING_RATES["Linear"])


def second_stage_epochs(name: str, epochs: int, share: float, bits: int | None = None) -> int:
    """Epochs of stage 2 among `epochs`: none for a float model, at least one otherwise.

    Raises:
        ValueError: too few epochs for the model's stages.
    """
    stages = 1 if is_float(name, bits) else 2
    if epochs < stages:
        raise ValueError(f"{name} trains in {stages} stages and needs at least {stages} epochs, not {epochs}")
    return max(1, round(share * epochs)) if stages == 2 else 0


def _two_stages(epochs: int) -> Any:
    from subbyte import keras_layers as ql

    return ql.TwoStage(second_stage_epochs=epochs)


class _bar:
    """Context of a rich progress bar; gives the function that advances it."""

    def __init__(self, name: str, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, transient=True)
        self._task = self._progress.add_task(name, total=steps)

    def __enter__(self) -> Callable[[], None]:
        self._progress.start()
        return lambda: self._progress.advance(self._task)

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
