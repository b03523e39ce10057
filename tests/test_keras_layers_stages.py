"""The two stages, in every kind of model, through training, interruption, saving and loading."""

import numpy as np
import pytest
import tensorflow as tf

from subbyte import keras_layers as ql
from subbyte.keras_layers.quantizers import Linear, Tanh
from subbyte.keras_layers.stages import stage_flags

keras = tf.keras
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (48, 6)).astype(np.float32)
Y = RNG.normal(0, 1, (48, 2)).astype(np.float32)


@pytest.fixture(autouse=True)
def seeded():
    tf.keras.utils.set_random_seed(0)


def hidden():
    return [
        ql.QuantInput(4.0),
        ql.QuantDense(5, kernel_quantizer=Tanh(4), normalization=ql.QuantBatchNormalization(momentum=0.5)),
        ql.ClippedReLU(4.0, momentum=0.9),
    ]


@keras.utils.register_keras_serializable(package="subbyte_tests")
class Block(keras.layers.Layer):
    """A layer of a user's that holds ours."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = ql.QuantDense(units, kernel_quantizer=Tanh(2), normalization=ql.QuantBatchNormalization())
        self.relu = ql.ClippedReLU(2.0)

    def build(self, input_shape):
        self.inner.build(input_shape)
        self.relu.build((*input_shape[:-1], self.units))
        self.built = True

    def call(self, inputs, training=None):
        return self.relu(self.inner(inputs, training=training), training=training)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.utils.register_keras_serializable(package="subbyte_tests")
class Subclassed(keras.Model):
    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first, self.block, self.head = ql.QuantInput(4.0), Block(units), ql.QuantDense(2)

    def call(self, inputs, training=None):
        return self.head(self.block(self.first(inputs, training=training), training=training), training=training)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def sequential():
    return keras.Sequential([keras.Input((6,)), *hidden(), ql.QuantDense(2, kernel_quantizer=Linear(5))])


def functional():
    inputs = keras.Input((6,))
    x = ql.QuantInput(4.0)(inputs)
    left, right = (ql.QuantDense(5, kernel_quantizer=Tanh(bits))(x) for bits in (1, 8))
    x = ql.QuantActivation(8.0)(keras.layers.Add()([left, right]))
    return keras.Model(inputs, ql.QuantDense(2)(x))


def nested():
    inner = keras.Sequential([keras.Input((6,)), *hidden()], name="encoder")
    return keras.Sequential([keras.Input((6,)), inner, ql.QuantDense(2)])


def custom_layer():
    return keras.Sequential([keras.Input((6,)), Block(5), ql.QuantDense(2)])


def shared_layer():
    inputs = keras.Input((6,))
    shared, relu = ql.QuantDense(6, kernel_quantizer=Tanh(3)), ql.ClippedReLU(4.0)
    return keras.Model(inputs, ql.QuantDense(2)(relu(shared(relu(shared(ql.QuantInput(4.0)(inputs)))))))


def subclassed():
    model = Subclassed()
    model(X[:1])
    return model


# The model and its number of stage flags: one for each activation, dense layer and normalization.
MODELS = {sequential: 5, functional: 5, nested: 5, custom_layer: 4, shared_layer: 4, subclassed: 5}


@pytest.fixture(params=MODELS, ids=lambda build: build.__name__)
def build(request):
    return request.param


def compiled(model):
    # Eager: the same code without the time for tracing.
    model.compile("sgd", "mse", run_eagerly=True)
    return model


class Record(keras.callbacks.Callback):
    """Notes (epoch, stage, learning rate) at the end of each epoch, and fails at the end of one."""

    def __init__(self, fail_after=None):
        super().__init__()
        self.stages, self.rates, self.fail_after = {}, {}, fail_after

    def on_epoch_end(self, epoch, logs=None):
        self.stages[epoch] = ql.stage_of(self.model)
        self.rates[epoch] = float(self.model.optimizer.learning_rate.numpy())

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.fail_after:
            raise InterruptedError


def fit(model, epochs, *callbacks, **arguments):
    record = Record(arguments.pop("fail_after", None))
    model.fit(X, Y, batch_size=24, epochs=epochs, verbose=0, callbacks=[*callbacks, record], **arguments)
    return record


def test_a_stage_reaches_every_layer_and_survives_saving(build, tmp_path):
    model = build()
    assert len(stage_flags(model.variables)) == MODELS[build]
    assert ql.stage_of(model) == 1
    for weight in model.trainable_weights:
        weight.assign(weight.numpy() + RNG.normal(0, 0.1, weight.shape))
    before = model(X).numpy()
    ql.set_stage(model, 2)
    assert ql.stage_of(model) == 2
    after = model(X).numpy()
    assert (before != after).any()

    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(X), after)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert ql.stage_of(loaded) == 2
    np.testing.assert_array_equal(loaded(X), after)

    model.save_weights(tmp_path / "model.weights.h5")
    fresh = build()
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert ql.stage_of(fresh) == 2
    np.testing.assert_array_equal(fresh(X), after)

    ql.set_stage(model, 1)
    np.testing.assert_array_equal(model(X), before)


def test_every_kind_of_model_trains_through_both_stages(build):
    model = compiled(build())
    before = [weight.numpy() for weight in model.trainable_weights]
    record = fit(model, 2, ql.TwoStage(1))
    assert record.stages == {0: 1, 1: 2}
    moved = [(weight.numpy() != old).any() for weight, old in zip(model.trainable_weights, before, strict=True)]
    # A bias in front of a batch normalization has no effect on the loss, a 1 of rounding moves it at most.
    assert sum(moved) >= len(moved) - 1


@pytest.mark.parametrize("part", ql.PARTS)
def test_parts_switch_alone_and_exactly(part):
    model = sequential()
    ql.set_stage(model, 2)
    ql.set_stage(model, 2, parts=[part])
    assert {name for name, _, flag in stage_flags(model.variables) if flag.numpy() == 1} == {part}
    assert {name for name, _, flag in stage_flags(model.variables)} == set(ql.PARTS)
    assert ql.stage_of(model) == 1
    kinds = {"activations": ql.ClippedReLU, "bias_and_gain": ql.QuantDense}
    on = [layer for layer in model.layers if float(layer.stage_flag.numpy()) == 1]
    assert {type(layer) for layer in on} <= {kinds.get(part), ql.QuantInput}


def test_flags_name_their_layer():
    layers = {(part, layer.split("/")[-1]) for part, layer, _ in stage_flags(nested().variables)}
    assert len(layers) == 5
    assert all(layer for _, layer in layers)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ql.set_stage(sequential(), 3), "stage must be 1 or 2, not 3"),
        (
            lambda: ql.set_stage(sequential(), 2, ["bias"]),
            "unknown part 'bias': the parts of stage 2 are bias_and_gain",
        ),
        (lambda: ql.set_stage(keras.Sequential([ql.QuantDense(2)], name="m"), 2), "(?s)m.*call(ed| it) on"),
        (lambda: ql.set_stage(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), 2), "no subbyte layer"),
        (lambda: ql.stage_of(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])), "so it has no stage"),
        (lambda: ql.TwoStage(-1), "second_stage_epochs must not be negative, not -1"),
        (lambda: ql.TwoStage(1, parts=["bias"]), "unknown part 'bias'"),
    ],
)
def test_errors_say_the_mend(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("second", "expected"), [(0, [1, 1, 1]), (2, [1, 2, 2]), (3, [2, 2, 2]), (5, [2, 2, 2])])
def test_two_stage_switches_at_the_right_epoch(second, expected):
    record = fit(compiled(sequential()), 3, ql.TwoStage(second))
    assert list(record.stages.values()) == expected


def test_two_stage_sets_the_learning_rate_once_for_stage_two():
    model = compiled(sequential())
    record = fit(model, 3, ql.TwoStage(2, learning_rate=0.002))
    assert list(record.rates.values()) == pytest.approx([0.01, 0.002, 0.002])


def test_a_schedule_of_the_optimizer_is_refused_beside_a_learning_rate():
    model = sequential()
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)), "mse")
    with pytest.raises(ValueError, match="cannot set what the optimizer's ExponentialDecay schedules"):
        fit(model, 2, ql.TwoStage(1, learning_rate=0.002))


def test_fit_says_that_it_ends_in_stage_one():
    model = compiled(sequential())
    # The loss of these labels cannot fall by 1000: the first epoch is the best.
    early = keras.callbacks.EarlyStopping("loss", min_delta=1000, patience=1, restore_best_weights=True)
    with pytest.warns(UserWarning, match="in stage 1: .* EarlyStopping ended it early .*start_from_epoch=5"):
        fit(model, 6, early, ql.TwoStage(1))
    assert ql.stage_of(model) == 1


def test_an_early_stop_that_starts_in_stage_two_stays_there():
    model = compiled(sequential())
    early = keras.callbacks.EarlyStopping(
        "loss", min_delta=1000, patience=1, restore_best_weights=True, start_from_epoch=1
    )
    fit(model, 6, early, ql.TwoStage(5))
    assert ql.stage_of(model) == 2


def test_two_stage_with_some_parts():
    model = compiled(sequential())
    fit(model, 2, ql.TwoStage(2, parts=["activations"]))
    assert {name for name, _, flag in stage_flags(model.variables) if flag.numpy() == 1} == {"activations"}


def test_two_stage_follows_initial_epoch():
    model = compiled(sequential())
    fit(model, 2, ql.TwoStage(0))
    assert fit(model, 4, ql.TwoStage(1), initial_epoch=2).stages == {2: 1, 3: 2}
    assert fit(model, 4, ql.TwoStage(1), initial_epoch=3).stages == {3: 2}


@pytest.mark.parametrize(
    ("fail_after", "resumed", "is_first"), [(1, {1: 1, 2: 2, 3: 2}, True), (3, {3: 2}, True), (3, {3: 2}, False)]
)
def test_an_interrupted_fit_goes_on_where_it_stood(tmp_path, fail_after, resumed, is_first):
    def both():
        pair = [ql.TwoStage(2, learning_rate=0.002), keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))]
        return pair if is_first else pair[::-1]

    with pytest.raises(InterruptedError):
        fit(compiled(sequential()), 4, *both(), fail_after=fail_after)
    record = fit(compiled(sequential()), 4, *both())
    assert record.stages == resumed
    assert record.rates == pytest.approx({epoch: 0.01 if epoch < 2 else 0.002 for epoch in resumed})


class Kept(keras.callbacks.Callback):
    """Notes the weights at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.weights = {}

    def on_epoch_end(self, epoch, logs=None):
        self.weights[epoch] = self.model.get_weights()


def fit_ever_worse(callback, is_first):
    """Five epochs, two in stage 1, each with a higher loss than the one before: (model, weights by epoch, record)."""
    model, batches = sequential(), []

    def loss(y, outputs):
        batches.append(1)
        return tf.reduce_mean(tf.square(y - outputs)) + 1000.0 * len(batches)

    model.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=True)
    kept, two_stage = Kept(), ql.TwoStage(3)
    record = fit(model, 5, kept, *([callback, two_stage] if is_first else [two_stage, callback]))
    return model, kept.weights, record


def assert_is_of_epoch(model, weights, epoch):
    for found, expected in zip(model.get_weights(), weights[epoch], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert ql.stage_of(model) == 2


@pytest.mark.parametrize("is_first", [True, False])
def test_early_stopping_brings_back_an_epoch_of_stage_two(is_first):
    early = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    model, weights, _ = fit_ever_worse(early, is_first)
    assert early.stopped_epoch == 4
    assert_is_of_epoch(model, weights, 2)


@pytest.mark.parametrize(("name", "is_first"), [("best.keras", True), ("best.weights.h5", False)])
def test_a_checkpoint_keeps_an_epoch_of_stage_two(name, is_first, tmp_path):
    path = str(tmp_path / name)
    keep = keras.callbacks.ModelCheckpoint(
        path, "loss", save_best_only=True, save_weights_only=name.endswith(".weights.h5")
    )
    _, weights, _ = fit_ever_worse(keep, is_first)
    best = sequential()
    if keep.save_weights_only:
        best.load_weights(path)
    else:
        best = keras.models.load_model(path, compile=False)
    assert_is_of_epoch(best, weights, 2)


def test_a_plateau_is_sought_in_each_stage():
    reduce = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2)
    _, _, record = fit_ever_worse(reduce, is_first=False)
    assert list(record.rates.values()) == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.005])


@pytest.mark.parametrize(("keep_stage", "expected"), [(True, [2, 2, 2]), (False, [1, 1, 2])])
def test_a_loaded_model_trains_on(tmp_path, keep_stage, expected):
    model = compiled(sequential())
    fit(model, 1, ql.TwoStage(1))
    model.save(tmp_path / "model.keras")
    loaded = compiled(keras.models.load_model(tmp_path / "model.keras"))
    record = fit(loaded, 3, ql.TwoStage(1, keep_stage=keep_stage))
    assert list(record.stages.values()) == expected
    assert list(fit(loaded, 2).stages.values()) == [2, 2]  # without the callback the stage stays


def test_the_stage_changes_a_compiled_training_step_without_compiling_anew():
    model = sequential()
    traces = []

    def loss(y, outputs):
        traces.append(1)
        return tf.reduce_mean(tf.square(y - outputs))

    model.compile(keras.optimizers.SGD(0.0), loss)
    model.optimizer.learning_rate = 0.0
    first = float(np.squeeze(model.train_on_batch(X, Y)))
    model.train_on_batch(X, Y)
    count = len(traces)
    ql.set_stage(model, 2)
    assert float(np.squeeze(model.train_on_batch(X, Y))) != first
    assert len(traces) == count
