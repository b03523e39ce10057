"""Trains the keyword models on a dataset: the paper's two stages at a scale that two cores can do.

Stage 1 takes most updates, the learning rate falls at its end, and stage 2, 7 % as long, quantizes everything else at
the lowest rate (arXiv 2207.06920, sections 4.2, 4.3 and 6.3). M0 to M6 start from random weights; a convolutional model
with bits starts from its float form, which is trained first.

A training that was interrupted goes on where it stood, if it was told where to keep its state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .augment import Augmentation, training_windows
from .data import Dataset
from .features import Normalization
from .models import CONVOLUTIONAL, Architecture, is_float, model, quantized

if TYPE_CHECKING:
    import tensorflow as tf


# By the quantizer's name. The latent weights of Tanh are as wide as 0.85, those of a float layer here about 0.05, so
# that Tanh needs longer steps for the same change.
LEARNING_RATES = {"float": 4e-3, "Tanh": 1.2e-2, "Linear": 4e-3}
SCHEDULES = ("cosine", "drop", "constant")
_DROP_AT = 0.8  # of stage 1
_LEG = 200  # updates between two savings of the state


@dataclass(frozen=True)
class TrainingRecipe:
    """Everything that training depends on besides the model and the data; chosen on the dev split.

    Attributes:
        windows: training windows, made once.
        updates: of stage 1, and of the float model's whole training.
        second_stage: updates of stage 2, as a share of stage 1.
        batch_size: windows an update.
        learning_rate: Adam's at the start of stage 1; None takes the one of LEARNING_RATES for the kind of weights.
        schedule: of the learning rate in stage 1: "cosine" lowers it all the way, "drop" at once after four fifths,
            "constant" never.
        final_rate: its share that is left at the end of stage 1 and throughout stage 2.
        label_smoothing: of the cross-entropy. It helps to tell words apart, but then posteriors crowd at one value,
            where no threshold of a detector can part them.
        dropout: see `models.model`.
        augmentation: how windows are made.
        fine_tuning: updates of a quantized model which starts from a float one, as a share of the float one's.
        fine_tuning_rate: share of the learning rate for that.
        calibration: windows from which such a model takes its ranges.
    """

    windows: int = 32_768
    updates: int = 2_400
    second_stage: float = 0.07
    batch_size: int = 256
    learning_rate: float | None = None
    schedule: str = "cosine"
    final_rate: float = 0.01
    label_smoothing: float = 0.0
    dropout: float = 0.1
    augmentation: Augmentation = field(default_factory=Augmentation)
    fine_tuning: float = 0.3
    fine_tuning_rate: float = 0.25
    calibration: int = 512

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")
        if self.updates < 1:
            raise ValueError(f"updates must be at least 1, not {self.updates}")


#: For tc_resnet_wide: masked runs as long as half a window, and voices and tempos far from those recorded. Chosen on
#: speakers held out of the training split, see docs/recipe.md.
RECOMMENDED = TrainingRecipe(
    windows=65_536,
    updates=2_000,
    augmentation=Augmentation(tempo=1.5, tract=3.0, frames_masked=13, bands_masked=12),
)


def recipe_for(name: str | Architecture) -> TrainingRecipe:
    """The recipe that `train` uses for a model when it is given none."""
    return RECOMMENDED if name == "tc_resnet_wide" else TrainingRecipe()


@dataclass(frozen=True)
class Trained:
    """A trained model and what must travel with it.

    Attributes:
        model: Keras model from normalised features [batch, 540] to logits [batch, classes].
        normalization: of the raw features.
        seconds: that training took, since it was last resumed.
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
    name: str | Architecture,
    dataset: Dataset,
    seed: int = 0,
    recipe: TrainingRecipe | None = None,
    quantizer: Callable[..., Any] | None = None,
    bits: int | None = None,
    progress: bool = False,
    start: tf.keras.Model | None = None,
    state: str | Path | None = None,
) -> Trained:
    """Trains one model on the training split. Raises ValueError where there is no such model.

    Args:
        name: of `models.NAMES`; or the architecture of another dense model.
        dataset: where windows come from.
        seed: of the windows, the initial weights and their order.
        recipe: default: that of `recipe_for`.
        quantizer, bits: see `models.model`.
        progress: shows a bar.
        start: for a convolutional model with bits, the trained float model; without it one is trained first.
        state: a folder that keeps the state while training runs. Where it holds the state of the same training, that
            goes on; it is removed at the end.
    """
    import tensorflow as tf

    recipe, begin = recipe or recipe_for(name), time.perf_counter()
    tf.keras.utils.set_random_seed(seed)
    network = start if name in CONVOLUTIONAL else model(name, dataset.classes, quantizer, bits, recipe.dropout)
    raw, labels = training_windows(dataset.train, recipe.windows, dataset.classes, recipe.augmentation, seed)
    normalization = Normalization.fit(raw, dataset.keywords)
    inputs, targets = tf.constant(normalization(raw)), tf.one_hot(labels, dataset.classes)
    same = "".join(map(repr, (name, recipe, seed, bits, getattr(quantizer, "__name__", quantizer))))
    training = _Training(recipe, inputs, targets, seed, _State(state, same.encode() + raw.tobytes()), progress)
    rate = recipe.learning_rate or learning_rate(name, quantizer, bits)
    if name in CONVOLUTIONAL:
        network = _train_convolutional(training, str(name), network, quantizer, bits, rate)
    else:
        title = name if isinstance(name, str) else "a dense model"
        second = 0 if is_float(name, bits) else second_stage_updates(recipe.updates, recipe.second_stage)
        network = training.run(network, title, (recipe.updates, second), rate)
    training.state.remove()
    return Trained(network, normalization, time.perf_counter() - begin)


def _train_convolutional(
    training: _Training, name: str, network: Any, quantizer: Callable[..., Any] | None, bits: int | None, rate: float
) -> Any:
    """Trains a convolutional model: in float, unless `network` is that model, and with bits its quantized twin."""
    recipe = training.recipe
    if network is None:
        network = model(name, training.targets.shape[1], dropout=recipe.dropout)
        network = training.run(network, name, (recipe.updates, 0), rate)
    if bits is not None:
        network = quantized(network, bits, quantizer, training.inputs[: recipe.calibration].numpy())
        network = training.fine_tune(network, f"{name} at {bits} bits", rate)
    return network


def learning_rate(
    name: str | Architecture, quantizer: Callable[..., Any] | None = None, bits: int | None = None
) -> float:
    """Adam's first learning rate for a model and its kernel quantizer; an unknown quantizer trains as Linear does."""
    if name in CONVOLUTIONAL or is_float(name, bits):
        return LEARNING_RATES["float"]
    kind = "Tanh" if quantizer is None else getattr(quantizer, "__name__", "")
    return LEARNING_RATES.get(kind, LEARNING_RATES["Linear"])


def second_stage_updates(first: int, share: float) -> int:
    """Updates of stage 2 behind `first` ones of stage 1."""
    return max(1, round(share * first))


@dataclass(frozen=True)
class _Training:
    """What all the runs of one training share: windows [n, INPUTS], targets [n, classes], and where the state goes."""

    recipe: TrainingRecipe
    inputs: tf.Tensor
    targets: tf.Tensor
    seed: int
    state: _State
    progress: bool

    def fine_tune(self, network: Any, title: str, rate: float) -> Any:
        """Trains a quantized network that starts from a float one, `rate` that of the float one, and returns it."""
        first = max(1, round(self.recipe.fine_tuning * self.recipe.updates))
        updates = (first, second_stage_updates(first, self.recipe.second_stage))
        return self.run(network, title, updates, rate * self.recipe.fine_tuning_rate)

    def run(self, network: Any, title: str, updates: tuple[int, int], rate: float) -> Any:
        """Trains `network` for the updates of stage 1 and of stage 2, none for a float model, and returns it."""
        from subbyte import keras_layers as ql

        found = self.state.load(title)
        done = 0
        if found is None:
            self._compile(network, updates[0], rate)
        else:
            network, done = found
        with _bar(title, sum(updates), self.progress) as show:
            for stage, leg in _legs(done, updates):
                show(leg.start)
                if updates[1]:
                    ql.set_stage(network, stage)
                network.fit(self._batches(leg), shuffle=False, verbose=0)
                self.state.save(title, network, leg.stop)
        return network

    def _compile(self, network: Any, updates: int, rate: float) -> None:
        import tensorflow as tf

        schedules, last = tf.keras.optimizers.schedules, rate * self.recipe.final_rate
        schedule = {
            "cosine": schedules.CosineDecay(rate, updates, alpha=self.recipe.final_rate),
            "drop": schedules.PiecewiseConstantDecay([round(_DROP_AT * updates)], [rate, last]),
            "constant": rate,
        }[self.recipe.schedule]
        loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=self.recipe.label_smoothing)
        network.compile(optimizer=tf.keras.optimizers.Adam(schedule), loss=loss)

    def _batches(self, leg: range) -> Any:
        """The batches of these updates: each pass over the windows in an order of its own, whoever asks and when."""
        import tensorflow as tf

        size, count = min(self.recipe.batch_size, len(self.inputs)), len(self.inputs)
        first, last = leg.start * size, leg.stop * size
        passes = range(first // count, -(-last // count))
        order = np.concatenate([np.random.default_rng((self.seed, number)).permutation(count) for number in passes])
        order = order[first - passes.start * count :][: last - first]

        def windows(rows: Any) -> Any:
            return tf.gather(self.inputs, rows), tf.gather(self.targets, rows)

        return tf.data.Dataset.from_tensor_slices(order.reshape(-1, size)).map(windows).prefetch(2)


def _legs(done: int, updates: tuple[int, int]) -> Iterator[tuple[int, range]]:
    """(stage, updates) of what remains, cut where the state is saved."""
    stages = ((1, range(0, updates[0])), (2, range(updates[0], sum(updates))))
    for stage, within in stages:
        for start in range(within.start, within.stop, _LEG):
            leg = range(max(start, done), min(start + _LEG, within.stop))
            if leg:
                yield stage, leg


class _State:
    """A folder in which a training leaves what it needs to go on.

    Args:
        folder: None keeps nothing.
        same: bytes that are equal for equal trainings; the state of another one is not taken up.
    """

    def __init__(self, folder: str | Path | None, same: bytes) -> None:
        self._folder = None if folder is None else Path(folder) / hashlib.sha256(same).hexdigest()[:16]

    def load(self, title: str) -> tuple[Any, int] | None:
        """The compiled model and the updates it has seen; None where there is no state."""
        import tensorflow as tf

        from subbyte import keras_layers  # noqa: F401  registers the layers

        if self._folder is None or not (self._folder / f"{title}.json").is_file():
            return None
        found = json.loads((self._folder / f"{title}.json").read_text())
        return tf.keras.models.load_model(self._folder / found["model"]), found["updates"]

    def save(self, title: str, network: Any, updates: int) -> None:
        """Keeps the model with its optimizer; what was kept before goes when that is done."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{title}-{updates}.keras"
        network.save(self._folder / name)
        partial = self._folder / f"{title}.part"
        partial.write_text(json.dumps({"model": name, "updates": updates}))
        partial.replace(self._folder / f"{title}.json")
        for old in self._folder.glob(f"{title}-*.keras"):
            if old.name != name:
                old.unlink()

    def remove(self) -> None:
        """Removes the state of a training that is done."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # others may have theirs beside it
                self._folder.parent.rmdir()


@contextlib.contextmanager
def _bar(name: str, updates: int, visible: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar; gives the function that is told the updates done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True, disable=not visible) as progress:
        task = progress.add_task(f"Training {name}", total=updates)
        yield lambda done: progress.update(task, completed=done)
