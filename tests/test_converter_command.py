"""The command convert-to-tflite: what it writes and prints, and one line on standard error for whatever is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nets import keras, layers, small_net

from subbyte import kernels
from subbyte.converter import command, convert, float_tflite, packed_target
from subbyte.converter.conversion import Conversion

SCRIPT = Path(sys.executable).with_name("convert-to-tflite")


class Run:
    """One run: exit status, standard output, lines on standard error."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err.splitlines()


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command in this process: importing TensorFlow takes seconds."""
    monkeypatch.setattr(command, "silence_native_logs", lambda: None)

    def run(*arguments: object) -> Run:
        for flag in command.FLAGS.get_key_flags_for_module(command):
            flag.unparse()
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["convert-to-tflite", *map(str, arguments)])
        return Run(command.main(), *capsys.readouterr())

    return run


def script(*arguments: object) -> Run:
    """Runs the console script itself."""
    done = subprocess.run([SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    return Run(done.returncode, done.stdout, done.stderr)


class Own(layers.Layer):
    """A layer that nobody registered."""

    def call(self, inputs):
        return 2 * inputs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models, good and bad, and of inputs to verify on, good and bad."""
    folder = tmp_path_factory.mktemp("files")
    small_net().save(folder / "good.keras")
    small_net(stage=1).save(folder / "stage_one.keras")
    keras.Sequential([keras.Input((4,)), Own(name="mine")]).save(folder / "own.keras")
    h5 = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    h5.save(folder / "old.h5")
    other = {"keras_version": "2.15.0" if "__version__" in dir(keras) and keras.__version__ > "3" else "3.9.0"}
    with zipfile.ZipFile(folder / "other_version.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps(other))
    (folder / "float.tflite").write_bytes(float_tflite(h5))
    keras.Sequential([keras.Input((4,)), layers.Dense(2)]).save(folder / "stock.keras")
    # So wide that packing it makes it smaller.
    (folder / "int8.tflite").write_bytes(convert(small_net(width=256), target="int8", io="int8").tflite)
    (folder / "packed.tflite").write_bytes(convert(small_net()).tflite)
    whole = (folder / "good.keras").read_bytes()
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(folder / "other.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    whole = (folder / "int8.tflite").read_bytes()
    (folder / "cut.tflite").write_bytes(whole[: len(whole) // 2])
    (folder / "text.txt").write_text("hello\n")
    (folder / "text.keras").write_text("hello\n")
    (folder / "empty.tflite").write_bytes(b"")
    (folder / "plain").mkdir()
    (folder / "damaged").mkdir()
    (folder / "damaged" / "saved_model.pb").write_bytes(b"\xff" * 100)
    x = np.random.default_rng(0).normal(0, 2, (50, 10)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    np.savez(folder / "names.npz", a=x, b=x)
    np.savez(folder / "shape.npz", x=x[:, :7])
    np.savez(folder / "scalar.npz", x=np.float32(3))
    np.savez(folder / "nan.npz", x=np.where(x > 3, np.nan, x))
    np.savez(folder / "none.npz", x=x[:0])
    np.savez(folder / "words.npz", x=np.full((2, 10), "a"))
    np.savez(folder / "empty.npz")
    np.savez(folder / "objects.npz", x=np.array([None] * 10, object))
    np.save(folder / "bare.npy", x)
    (folder / "void.npz").write_bytes(b"")
    whole = (folder / "x.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    return folder


MODELS = {
    "missing.keras": "cannot read .*missing.keras: No such file",
    "plain": "a folder without saved_model.pb",
    "damaged": "cannot load .*damaged",
    "text.txt": "no model that subbyte reads",
    "text.keras": "not a Keras model",
    "cut.keras": "not a Keras model",
    "other.keras": "cannot load .*other.keras",
    "cut.tflite": "cut.tflite is damaged",
    "empty.tflite": "no model that subbyte reads",
    "packed.tflite": "packed already",
    "own.keras": "own.keras uses Own, which this command does not know: export the model as a SavedModel",
    "old.h5": "old.h5 is an HDF5 file: load it with tf.keras.models.load_model and save it as old.keras",
    "other_version.keras": "was saved by Keras [23][^ ]+, and this is .*TF_USE_LEGACY_KERAS=1",
    "float.tflite": "its weights are float32; quantize it to int8 first, .*representative dataset",
    "stage_one.keras": r"stage 1 .*set_stage\(model, 2\)",
    "stock.keras": "nothing to pack in this model",
}

INPUTS = {
    "missing.npz": "No such file",
    "names.npz": "has no array 'features': it holds a, b",
    "shape.npz": r"input 'features' is \[50, 7\], the model takes \[samples, 10\]",
    "scalar.npz": r"is \[\], the model takes",
    "nan.npz": "NaN or infinity",
    "none.npz": "the same number of samples, at least one",
    "words.npz": "not numbers",
    "empty.npz": "has no array 'features': it holds nothing",
    "objects.npz": "cannot read",
    "bare.npy": "cannot read .*one bare array",
    "void.npz": "cannot read",
    "cut.npz": "cannot read",
    "text.txt": "cannot read",
    "good.keras": "has no array|not numbers|cannot read|is \\[",
}


def assert_one_line(run: Run, message: str) -> None:
    assert run.status == 2
    assert run.out == ""
    assert len(run.err) == 1, run.err
    assert re.search(message, run.err[0]), run.err[0]
    assert run.err[0].startswith("convert-to-tflite: ")


@pytest.fixture
def output(tmp_path):
    """A file that is there already."""
    path = tmp_path / "out.tflite"
    path.write_bytes(b"the old one")
    return path


def assert_untouched(output: Path) -> None:
    assert output.read_bytes() == b"the old one"
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model_is_one_line(name, run, files, output):
    assert_one_line(run(f"--model={files / name}", f"--output={output}"), MODELS[name])
    assert_untouched(output)


@pytest.mark.parametrize("name", INPUTS)
def test_bad_inputs_to_verify_on_are_one_line(name, run, files, output):
    # The int8 file converts in milliseconds; its input has the same name.
    arguments = [f"--model={files / 'int8.tflite'}", f"--output={output}", f"--verify={files / name}"]
    assert_one_line(run(*arguments), INPUTS[name])
    assert_untouched(output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target=int3"], "--target=int3.*packed"),
        (["--io=uint4"], "--io=uint4.*same.*float32.*uint8"),
        (["--bits=0"], r"--bits=0.*\[1, 8\]"),
        (["--bits=four"], "--bits=four"),
        (["--bits=4", "--first_last_bits=9"], r"--first_last_bits=9.*\[1, 8\]"),
        (["--modle=x"], "modle.*--help lists the flags"),
        (["stray.keras"], "unexpected argument 'stray.keras'"),
        *[([f"--{flag}="], f"--{flag} is empty") for flag in ("model", "output", "verify", "calibration", "report")],
        (["--json=yes"], r"--json=yes: Non-boolean argument to boolean flag: give --flag or --noflag; [^()]*$"),
        (["--first_last_bits=4"], "--first_last_bits goes with --bits"),
    ],
)
def test_bad_flags_are_one_line(arguments, message, run, files, output):
    assert_one_line(run(f"--model={files / 'int8.tflite'}", f"--output={output}", *arguments), message)
    assert_untouched(output)


def test_a_fault_of_ours_has_an_exit_status_of_its_own(run, files, output, monkeypatch):
    def broken(*_):
        raise TypeError("no such thing\nat all")

    monkeypatch.setattr(Conversion, "write", broken)
    done = run(f"--model={files / 'int8.tflite'}", f"--output={output}")
    assert (done.status, done.out, len(done.err)) == (70, "", 1)
    assert re.search("internal error, SUBBYTE_TRACEBACK=1 .*: TypeError: no such thing at all$", done.err[0])
    assert_untouched(output)
    monkeypatch.setenv("SUBBYTE_TRACEBACK", "1")
    assert "in broken" in "".join(run(f"--model={files / 'int8.tflite'}").err)


@pytest.mark.parametrize("becomes", [KeyboardInterrupt, RuntimeError], ids=lambda kind: kind.__name__)
def test_an_interrupt_is_one_line_whatever_native_code_makes_of_it(becomes, run, files, output, monkeypatch):
    def interrupted(*_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise becomes("seen in a callback") from None

    monkeypatch.setattr(Conversion, "write", interrupted)
    # A shell starts what runs in the background with the interrupt ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = run(f"--model={files / 'int8.tflite'}", f"--output={output}")
        after = signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.status, done.out, done.err) == (130, "", ["convert-to-tflite: interrupted"])
    assert after is signal.default_int_handler
    assert_untouched(output)


def ways_to(path: Path) -> dict[str, Path]:
    """Names that all lead to the file at `path`."""
    folder = path.parent
    os.symlink(path, folder / "link")
    os.link(path, folder / "hard")
    os.symlink(folder, folder / "around")
    return {
        "itself": path,
        "relative": Path(os.path.relpath(path)),
        "dots": folder / "around" / ".." / folder.name / path.name,
        "a folder's link": folder / "around" / path.name,
        "link": folder / "link",
        "hard link": folder / "hard",
    }


@pytest.mark.parametrize("flag", ["--model", "--verify", "--calibration"])
def test_nothing_that_is_read_is_written_over(flag, run, files, tmp_path):
    source = tmp_path / "read"
    source.write_bytes((files / ("int8.tflite" if flag == "--model" else "x.npz")).read_bytes())
    before = source.read_bytes()
    for way, path in ways_to(source).items():
        done = run(f"--model={files / 'int8.tflite'}", f"{flag}={source}", f"--output={path}")
        assert_one_line(done, f"--output would write over the file that {flag} reads")
        assert source.read_bytes() == before, way


def test_nothing_is_written_into_the_model_or_twice(run, files, tmp_path):
    (tmp_path / "inner").mkdir()
    saved = (files / "damaged" / "saved_model.pb").read_bytes()
    os.symlink(files / "damaged", tmp_path / "link")
    for output in (
        files / "damaged" / "a.tflite",
        tmp_path / "link" / "a.tflite",
        files / "damaged" / "saved_model.pb",
    ):
        done = run(f"--model={files / 'damaged'}", f"--output={output}")
        assert_one_line(done, "--output=.* is inside the folder that --model reads")
    assert [path.read_bytes() for path in (files / "damaged").iterdir()] == [saved]
    page = tmp_path / "page.html"
    os.symlink(page, tmp_path / "leads_to_it.html")  # nothing is there yet
    arguments = [f"--model={files / 'int8.tflite'}", f"--output={page}"]
    for report in (
        page,
        tmp_path / "inner" / ".." / "page.html",
        tmp_path / "leads_to_it.html",
        tmp_path / "PAGE.html",
    ):
        assert_one_line(run(*arguments, f"--report={report}"), "--report and --output would write the same file")
    header = tmp_path / "read.h"
    header.write_bytes((files / "int8.tflite").read_bytes())
    done = run(f"--model={header}", "--format=c", f"--output={header.with_suffix('.c')}")
    assert_one_line(done, "--output's header would write over the file that --model reads")
    assert header.read_bytes() == (files / "int8.tflite").read_bytes()


def test_a_failure_leaves_the_file_that_was_there(run, files, output, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert_one_line(run(f"--model={files / 'int8.tflite'}", f"--output={output}"), "cannot write .*No space left")
    assert_untouched(output)


def test_a_missing_flag_is_one_line(run):
    assert_one_line(run(), "--model is missing")


def test_outputs_that_cannot_be_written_are_one_line(run, files, tmp_path, monkeypatch):
    model = f"--model={files / 'int8.tflite'}"
    assert_one_line(run(model, f"--output={tmp_path / 'none' / 'a.tflite'}"), "there is no folder")
    assert_one_line(run(model, f"--output={tmp_path}"), "it is a folder")
    # Whoever runs this as root may write anywhere.
    monkeypatch.setattr("os.access", lambda *_: False)
    assert_one_line(run(model, f"--output={tmp_path / 'a.tflite'}"), "permission denied")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_is_written_and_reported(run, files, output):
    done = run(f"--model={files / 'good.keras'}", f"--output={output}", f"--verify={files / 'x.npz'}")
    assert (done.status, done.err) == (0, [])
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.tflite"]
    for text in ("SubbyteFullyConnected", "everything else", "packed (written)", "Keras", f"wrote {output}"):
        assert text in done.out
    assert "FAILED" not in done.out
    kernels.Interpreter(model_content=output.read_bytes()).allocate_tensors()


def test_bits_requantize_a_tflite_and_tell_how_often_the_answer_stays(run, files, output):
    arguments = [f"--model={files / 'int8.tflite'}", f"--verify={files / 'x.npz'}", "--bits=1", "--first_last_bits=1"]
    done = run(*arguments, f"--output={output}")
    assert (done.status, done.err) == (0, [])
    agreement = re.search(r"its largest is the original's on ([0-9.]+)% of the inputs", done.out)
    assert agreement, done.out
    assert "any: fewer bits" in done.out
    assert output.read_bytes() == convert(files / "int8.tflite", bits=1, first_last_bits=1).tflite
    report = json.loads(run(*arguments, "--json").out)
    assert [layer["weight_bits"] for layer in report["layers"]] == [1, 1]
    assert report["verification"][-1]["same_top"] == pytest.approx(float(agreement[1]) / 100, abs=6e-4)


def test_bits_are_not_for_a_keras_model(run, files, output):
    assert_one_line(
        run(f"--model={files / 'good.keras'}", "--bits=4", f"--output={output}"), "--bits requantizes an int8"
    )
    assert_untouched(output)


@pytest.fixture(scope="module")
def float_files(files):
    """Two float models, one that 4 bits hardly hurt, and inputs for both."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    sound = keras.Sequential([keras.Input((12, 3)), layers.Conv1D(6, 3, activation="relu"), layers.Flatten()])
    sound.add(layers.Dense(4))
    sound.save(files / "sound.keras")
    deep = keras.Sequential([keras.Input((12, 3))])
    for _ in range(8):
        deep.add(layers.Conv1D(6, 3, padding="same", activation="relu"))
    deep.add(layers.Flatten())
    deep.add(layers.Dense(4))
    deep.save(files / "deep.keras")
    keras.Sequential([keras.Input((12, 3)), layers.LSTM(4, name="memory")]).save(files / "memory.keras")
    np.savez(files / "sounds.npz", rng.normal(size=(40, 12, 3)).astype(np.float32))
    np.savez(files / "no_sounds.npz", np.zeros((0, 12, 3), np.float32))
    return files


def test_a_float_model_is_quantized_without_training(run, float_files, output):
    arguments = [f"--calibration={float_files / 'sounds.npz'}", f"--verify={float_files / 'sounds.npz'}"]
    arguments.append(f"--model={float_files / 'sound.keras'}")
    done = run(*arguments, "--bits=4", "--first_last_bits=4", f"--output={output}")
    assert (done.status, done.err) == (0, [])
    found = re.search(r"SQNR ([0-9.]+) dB, the largest is the same on ([0-9.]+)% of the inputs", done.out)
    assert found, done.out
    assert "on 40 inputs" in done.out
    assert "SubbyteConv2D" in done.out
    # The oracle: the float model in Keras beside the written file in the interpreter.
    x = np.load(float_files / "sounds.npz")["arr_0"]
    expected = keras.models.load_model(float_files / "sound.keras").predict(x, verbose=0)
    interpreter = kernels.Interpreter(model_content=output.read_bytes())
    interpreter.allocate_tensors()
    outputs = []
    for row in x:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    noise = 10 * np.log10(np.sum(expected**2) / np.sum((expected - outputs) ** 2))
    assert noise == pytest.approx(float(found[1]), abs=0.06)
    same = np.mean(expected.argmax(axis=1) == np.argmax(outputs, axis=1))
    assert same == pytest.approx(float(found[2]) / 100, abs=6e-4)


def test_the_report_says_when_training_is_advised(run, float_files, output):
    told = {}
    for name, bits in (("sound", 8), ("deep", 2)):
        arguments = [f"--model={float_files / f'{name}.keras'}", f"--calibration={float_files / 'sounds.npz'}"]
        report = json.loads(run(*arguments, f"--bits={bits}", "--json").out)["post_training"]
        assert report["wants_training"] == (report["output_sqnr_db"] < 20)
        assert report["samples"] == 40
        told[name] = report["wants_training"]
        assert ("Training is advised" in run(*arguments, f"--bits={bits}").out) == told[name]
    assert told == {"sound": False, "deep": True}


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("sound.keras", ["--bits=4"], "together with --calibration"),
        ("sound.keras", ["--calibration={}/sounds.npz"], "--calibration goes with --bits"),
        ("sound.keras", ["--bits=4", "--calibration={}/no_sounds.npz"], "is empty: give some hundred samples"),
        ("sound.keras", ["--bits=4", "--calibration={}/names.npz"], "the calibration has no array"),
        ("sound.keras", ["--bits=4", "--calibration={}/shape.npz"], r"the model takes \[samples, 12, 3\]"),
        ("sound.keras", ["--bits=4", "--calibration={}/missing.npz"], "No such file"),
        ("memory.keras", ["--bits=4", "--calibration={}/sounds.npz"], r"nothing to quantize in .*memory \(LSTM\)"),
        ("sound.keras", [], "--bits with --calibration quantizes a float Keras model"),
        ("good.keras", ["--bits=4", "--calibration={}/x.npz"], "has subbyte layers: --calibration is for float models"),
        ("int8.tflite", ["--bits=4", "--calibration={}/x.npz"], "--calibration is for a float Keras model"),
    ],
)
def test_bad_calibrations_are_one_line(model, arguments, message, run, float_files, output):
    arguments = [argument.format(float_files) for argument in arguments]
    assert_one_line(run(f"--model={float_files / model}", f"--output={output}", *arguments), message)
    assert_untouched(output)


def test_json_is_the_whole_output_and_has_the_same_numbers(run, files, output):
    arguments = [f"--model={files / 'good.keras'}", f"--output={output}", f"--verify={files / 'x.npz'}", "--json"]
    done = run(*arguments)
    assert (done.status, done.err) == (0, [])
    report = json.loads(done.out)
    result = convert(files / "good.keras")
    assert report["file_bytes"] == output.stat().st_size == result.totals["packed"]
    assert report["totals"] == result.totals
    assert [layer["stored_bytes"] for layer in report["layers"]] == [layer.stored_bytes for layer in result.layers]
    assert [layer["weight_bits"] for layer in report["layers"]] == [4, 2]
    assert all(entry["passed"] and entry["differing"] == 0 for entry in report["verification"])


def test_models_that_differ_exit_with_1(run, files, output, monkeypatch):
    packed_layer = packed_target.packed_layer

    def sabotaged(graph, op):
        layer = packed_layer(graph, op)
        return replace(layer, codes=layer.codes ^ (np.arange(layer.codes.size) == 5).reshape(layer.codes.shape))

    monkeypatch.setattr(packed_target, "packed_layer", sabotaged)
    arguments = [f"--model={files / 'int8.tflite'}", f"--output={output}", f"--verify={files / 'x.npz'}"]
    done = run(*arguments)
    assert done.status == 1
    assert "FAILED" in done.out


def test_a_report_is_a_page_beside_everything_else(run, files, output):
    report = output.with_name("report.html")
    arguments = [f"--model={files / 'good.keras'}", f"--verify={files / 'x.npz'}", f"--report={report}"]
    done = run(*arguments, f"--output={output}", "--json")
    assert (done.status, done.err) == (0, [])
    size = json.loads(done.out)["file_bytes"]
    assert size == output.stat().st_size
    text = report.read_text(encoding="utf-8")
    assert f"{size:,} bytes" in text
    assert "on 50 inputs" in text
    done = run(*arguments)
    assert done.out.endswith(f"wrote {report}\n")


def test_a_report_of_a_float_model_is_measured_on_the_calibration_and_against_float(run, float_files, tmp_path):
    report = tmp_path / "report.html"
    arguments = [f"--model={float_files / 'sound.keras'}", f"--calibration={float_files / 'sounds.npz'}", "--bits=4"]
    assert run(*arguments, f"--report={report}").status == 0
    text = report.read_text(encoding="utf-8")
    for part in ("Quantized without training, on 40 inputs", "Quantized tensors on 40 inputs"):
        assert part in text
    assert "no float model" not in text
    assert re.search(r'<th scope="row">float32</th>\s*<td>[0-9.]+</td>', text)


@pytest.mark.parametrize(
    ("path", "message"),
    [("report.txt", "must end in .html"), ("none/report.html", "there is no folder"), ("a.html", "it is a folder")],
)
def test_a_report_that_cannot_be_written_is_one_line(path, message, run, files, tmp_path):
    (tmp_path / "a.html").mkdir()
    assert_one_line(run(f"--model={files / 'missing.keras'}", f"--report={tmp_path / path}"), message)


def test_a_report_without_its_libraries_is_one_line(run, files, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run(f"--model={files / 'missing.keras'}", f"--report={tmp_path / 'report.html'}")
    assert_one_line(done, r"needs jinja2 and matplotlib: pip install 'subbyte\[report\]'")
    assert list(tmp_path.iterdir()) == []


def test_there_is_nothing_to_report_of_a_packed_file_in_c(run, files, tmp_path):
    arguments = [f"--model={files / 'packed.tflite'}", "--format=c", f"--report={tmp_path / 'report.html'}"]
    assert_one_line(run(*arguments), "packed already: there is nothing to --verify or to report")


class TestConsoleScript:
    """What only the real process shows: nothing from native libraries, exit statuses, no TensorFlow for a .tflite."""

    @pytest.mark.once
    def test_help(self):
        done = script("--help")
        assert "--model" in done.out
        assert "--verify" in done.out
        assert (done.status, done.err) == (0, [])

    def test_a_keras_model(self, tmp_path):
        output, x = tmp_path / "out.tflite", tmp_path / "x.npz"
        small_net().save(tmp_path / "good.keras")
        np.savez(x, x=np.random.default_rng(0).normal(0, 2, (50, 10)).astype(np.float32))
        done = script(f"--model={tmp_path / 'good.keras'}", f"--output={output}", f"--verify={x}", "--json")
        assert (done.status, done.err) == (0, [])
        assert json.loads(done.out)["file_bytes"] == output.stat().st_size
        plain = tmp_path / "plain"
        plain.write_bytes(b"")
        assert output.stat().st_mode == plain.stat().st_mode

    @pytest.mark.once
    def test_a_tflite_without_tensorflow(self, files, tmp_path):
        blocked = tmp_path / "blocked"
        (blocked / "tensorflow").mkdir(parents=True)
        (blocked / "tensorflow" / "__init__.py").write_text("raise ImportError('TensorFlow is not for this')\n")
        environment = os.environ | {"PYTHONPATH": str(blocked)}
        arguments = [SCRIPT, f"--model={files / 'int8.tflite'}", "--io=int8", f"--output={tmp_path / 'out.tflite'}"]
        arguments += [f"--verify={files / 'x.npz'}", f"--report={tmp_path / 'report.html'}"]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "out.tflite").read_bytes() == convert(files / "int8.tflite", io="int8").tflite
        assert "nobody knows the weights before" in (tmp_path / "report.html").read_text(encoding="utf-8")

    @pytest.mark.once
    def test_a_bad_model(self, files, output):
        done = script(f"--model={files / 'cut.tflite'}", f"--output={output}")
        assert_one_line(done, "is damaged")
        assert_untouched(output)
