"""The two stages of training: the weights first, then everything else (arXiv 2207.06920, sections 4.2 and 4.3).

A layer keeps one non-trainable scalar for each part of it that stage 2 quantizes: 0 in stage 1, 1 in stage 2. So the
stage is saved with the weights, takes effect without compiling anew, and is found in any model through its variables.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable, Sequence

import tensorflow as tf

callbacks = tf.keras.callbacks

#: What stage 2 switches on, each selectable alone.
PARTS = ("bias_and_gain", "activations", "batch_norm")

_PREFIX = "stage_two_"


def add_stage_flag(layer: tf.keras.layers.Layer, part: str) -> tf.Variable:
    """A variable of `layer`, 1 while `part` of it is quantized; starts at 0."""
    return layer.add_weight(name=_PREFIX + part, shape=(), dtype="float32", initializer="zeros", trainable=False)


def is_on(flag: tf.Variable) -> tf.Tensor:
    """Scalar bool tensor."""
    return tf.convert_to_tensor(flag) > 0.5


def set_stage(model: tf.keras.Model, stage: int, parts: Sequence[str] = PARTS) -> None:
    """Puts every subbyte layer of a built model into stage 1 or 2.

    Args:
        model: a built model (or layer) that holds subbyte layers at any depth.
        stage: 1 quantizes the kernels alone; 2 quantizes the `parts` as well. Other parts go back to stage 1.
        parts: some of `PARTS`, for ablations.

    Raises:
        ValueError: an unknown stage or part; a model that is not built or has nothing to switch.
    """
    if stage not in (1, 2):
        raise ValueError(f"stage must be 1 or 2, not {stage!r}")
    _check(parts)
    flags = stage_flags(model.variables)
    if not flags:
        raise ValueError(
            f"{model.name} has no subbyte layer to put into stage {stage}; if it has some, call it on data first"
        )
    for part, _, variable in flags:
        variable.assign(float(stage == 2 and part in parts))


def _check(parts: Sequence[str]) -> None:
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise ValueError(f"unknown part {sorted(unknown)[0]!r}: the parts of stage 2 are {', '.join(PARTS)}")


def stage_flags(variables: Iterable[tf.Variable]) -> list[tuple[str, str, tf.Variable]]:
    """(part, name of the layer, variable) of every stage flag among a model's variables."""
    named = [(*layer_and_name(variable), variable) for variable in variables]
    return [(name.removeprefix(_PREFIX), layer, flag) for layer, name, flag in named if name.startswith(_PREFIX)]


def layer_and_name(variable: tf.Variable) -> tuple[str, str]:
    """A variable's layer, with what it stands in, and its own name."""
    # Keras 3 has the whole path in `path`, tf-keras in `name`, which ends in ":0".
    *scope, name = getattr(variable, "path", variable.name).split(":")[0].split("/")
    return "/".join(scope), name


def stage_of(model: tf.keras.Model) -> int:
    """2 if every part of every layer is in stage 2, else 1. Raises ValueError for a model without subbyte layers."""
    flags = stage_flags(model.variables)
    if not flags:
        raise ValueError(f"{model.name} has no subbyte layer, so it has no stage")
    return 2 if all(float(variable.numpy()) > 0.5 for _, _, variable in flags) else 1


class TwoStage(tf.keras.callbacks.Callback):
    """Runs the last `second_stage_epochs` of `model.fit` in stage 2, those before it in stage 1.

    The stage follows from the number of the epoch, so training resumed by `BackupAndRestore` or with
    `fit(initial_epoch=...)` goes on in the stage in which it stood. `keep_stage=True` never goes back from stage 2 to
    1: for a loaded model that has finished both stages and trains on with a count of epochs that starts again.

    An epoch of stage 2 is not compared with one of stage 1, whose losses are lower: where stage 2 begins, the
    `EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` beside TwoStage, in any order, forget what was the best
    (an `initial_value_threshold` as well). So they bring back and keep weights of stage 2. `fit` warns where it ends in
    stage 1 after all, such as by an `EarlyStopping` without `start_from_epoch`.

    Args:
        second_stage_epochs: epochs in stage 2; the paper spends 7 % of the updates there.
        learning_rate: for stage 2, or None to keep what the optimizer has.
        parts: what stage 2 switches on, some of `PARTS`.
        keep_stage: see above.
    """

    def __init__(
        self,
        second_stage_epochs: int,
        learning_rate: float | None = None,
        parts: Sequence[str] = PARTS,
        keep_stage: bool = False,
    ) -> None:
        super().__init__()
        if second_stage_epochs < 0:
            raise ValueError(f"second_stage_epochs must not be negative, not {second_stage_epochs}")
        _check(parts)
        self.second_stage_epochs = second_stage_epochs
        self.learning_rate = learning_rate
        self.parts = tuple(parts)
        self.keep_stage = keep_stage

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.learning_rate is None:
            return
        rate = self.model.optimizer.get_config().get("learning_rate")
        if isinstance(rate, dict):
            raise ValueError(
                f"TwoStage(learning_rate={self.learning_rate!r}) cannot set what the optimizer's "
                f"{rate.get('class_name')} schedules: leave learning_rate out, or compile with a number"
            )

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.second_stage_epochs > 0 and not self._is_in_stage_two():
            first = max(self.params["epochs"] - self.second_stage_epochs, 0)
            who = " or ".join(type(callback).__name__ for callback in _comparing()) or "a callback"
            warnings.warn(
                f"fit leaves {self.model.name} in stage 1: it was to end in stage 2, but {who} ended it early or "
                f"brought weights of stage 1 back; give EarlyStopping start_from_epoch={first}, where stage 2 starts",
                stacklevel=2,
            )

    def _is_in_stage_two(self) -> bool:
        return any(float(flag.numpy()) > 0.5 for *_, flag in stage_flags(self.model.variables))

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        in_stage_two = self._is_in_stage_two()
        if epoch < self.params["epochs"] - self.second_stage_epochs:
            if not (self.keep_stage and in_stage_two):
                set_stage(self.model, 1)
        elif not in_stage_two:
            set_stage(self.model, 2, self.parts)
            for callback in _comparing():
                _forget_the_best(callback)
            if self.learning_rate is not None:
                self.model.optimizer.learning_rate = self.learning_rate


def _comparing() -> list[tf.keras.callbacks.Callback]:
    """The callbacks that compare epochs in the `fit` that is running.

    Keras does not show a callback those beside it; the `CallbackList` that calls it is up the stack.
    """
    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), callbacks.CallbackList):
        frame = frame.f_back
    kinds = (callbacks.EarlyStopping, callbacks.ModelCheckpoint, callbacks.ReduceLROnPlateau)
    beside = [] if frame is None else frame.f_locals["self"].callbacks
    return [callback for callback in beside if isinstance(callback, kinds)]


def _forget_the_best(callback: tf.keras.callbacks.Callback) -> None:
    """Lets a callback of `_comparing` compare epochs from here on alone."""
    if not isinstance(callback, callbacks.ModelCheckpoint):
        callback.on_train_begin()  # which makes it ready for another fit
    elif callback.monitor_op is not None:  # it has compared
        callback.best = math.inf if callback.monitor_op(0.0, 1.0) else -math.inf
