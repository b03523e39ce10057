"""convert-to-tflite: a Keras model or an int8 .tflite in, a TFLite model with 1 to 8-bit weights out.

    convert-to-tflite --model=kws.keras --output=kws.tflite --verify=dev.npz
    convert-to-tflite --model=kws.keras --output=kws.c --format=c
    convert-to-tflite --model=kws.keras --output=kws.bin --format=bin
    convert-to-tflite --model=float.keras --output=four.tflite --bits=4 --calibration=train.npz
    convert-to-tflite --model=int8.tflite --output=four.tflite --bits=4
    convert-to-tflite --model=kws.keras --verify=dev.npz --report=kws.html

Exit status: 0; 1 where --verify finds a difference beyond what is promised; 2 where the input is at fault; 70 where
subbyte is; 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path

# TensorFlow reads it when it is imported; what it has to say is not about the user's model.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from subbyte import __version__
from subbyte.command_line import DIFFERS, guard
from subbyte.console import console as make_console
from subbyte.extras import needed_by

from .c_source import c_source
from .conversion import Conversion
from .errors import ConversionError
from .files import write_atomically
from .flatbuffer import IDENTIFIER
from .graph import Graph
from .image import image
from .io_types import IO_TYPES, SAME
from .logs import silence_native_logs
from .outputs import check_outputs
from .preference import PREFERENCES
from .report import print_comparisons, print_layers, print_post_training, print_summary, to_json
from .summary import Summary
from .targets import TARGETS
from .verification import load_inputs, read_arrays, untested, verify

with needed_by("subbyte.converter.command"):
    from absl import flags, logging
    from rich.console import Console
    from rich.progress import Progress

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras file, a SavedModel folder or an int8 .tflite.")
flags.DEFINE_string("output", None, "The file to write. Without it nothing is written, only reported.")
flags.DEFINE_enum(
    "format", "tflite", ["tflite", "c", "bin"], "A TFLite model; for firmware its layers in C, or as a binary image."
)
flags.DEFINE_enum("target", "packed", list(TARGETS), "How to store the weights.")
flags.DEFINE_enum(
    "io",
    None,
    [SAME, *IO_TYPES],
    "Type of inputs and outputs: those of the .tflite; float32 for a Keras model; int8 for firmware.",
)
flags.DEFINE_integer("bits", None, "Weights of an int8 .tflite, or of a float .keras with --calibration.", 1, 8)
flags.DEFINE_string("calibration", None, "An .npz of real inputs: quantize a float .keras without training, to --bits.")
flags.DEFINE_integer("first_last_bits", None, "With --bits: those of the first and the last layer; 8.", 1, 8)
flags.DEFINE_enum(
    "prefer",
    "bytes",
    list(PREFERENCES),
    "Without --bits: pack those layers of an int8 .tflite that make it smaller, or that run faster on this machine.",
)
flags.DEFINE_string(
    "verify",
    None,
    "An .npz of real inputs, [samples, ...] by input name, to compare the models on; an array of exactly the type of a "
    "quantized input holds codes.",
)
flags.DEFINE_bool("json", False, "Report in JSON on standard output.")
flags.DEFINE_string("report", None, "An .html file to write: sizes, codes, ranges, times on this machine, in one page.")

#: Flags that name a file or a folder: what is read, and what is written.
_INPUTS, _OUTPUTS = ("model", "calibration", "verify"), ("output", "report")


def main() -> int:
    """Entry point of the console script. Returns the exit status."""
    silence_native_logs()
    return guard("convert-to-tflite", lambda: _run(sys.argv), ConversionError)


def _run(arguments: list[str]) -> int:
    if {"--help", "-help", "-h"}.intersection(arguments):
        # absl knows the flags of the script that was started alone.
        print(f"{__doc__}\n{FLAGS.module_help(sys.modules[__name__])}")
        return 0
    if {"--version", "-version"}.intersection(arguments):
        print(f"subbyte {__version__}")
        return 0
    try:
        stray = FLAGS(arguments)[1:]
    except flags.Error as error:
        # absl prints the two arguments of an error as a tuple.
        message = re.sub(r"\('([^']*)', '[^']*'\)$", r"\1: give --flag or --noflag", str(error))
        raise ConversionError(f"{message}; convert-to-tflite --help lists the flags") from error
    _check_flags(stray)
    return _convert()


def _check_flags(stray: list[str]) -> None:
    """Raises ConversionError for flags that do not go together."""
    if stray:
        raise ConversionError(f"unexpected argument {stray[0]!r}: the model goes into --model")
    if FLAGS.model is None:
        raise ConversionError("--model is missing: give a .keras file, a SavedModel folder or an int8 .tflite")
    empty = [name for name in (*_INPUTS, *_OUTPUTS) if FLAGS[name].value == ""]
    if empty:
        raise ConversionError(f"--{empty[0]} is empty: give the path of a file, or leave it out")
    if FLAGS.first_last_bits is not None and FLAGS.bits is None:
        raise ConversionError("--first_last_bits goes with --bits: say how many bits the other layers shall have")


def _convert() -> int:
    logging.set_verbosity(logging.ERROR)
    outputs, report = _outputs(), _report_path()
    _check_outputs(outputs, report)
    console = make_console(markup=False, emoji=False)
    if FLAGS.format != "tflite" and _is_packed(Path(FLAGS.model)):
        _write_packed(outputs, report)
        _print_outputs(console, outputs)
        return 0
    errors = Console(stderr=True)
    is_shown = errors.is_terminal and not FLAGS.json
    with errors.status(f"converting {FLAGS.model}") if is_shown else nullcontext():
        conversion = _start()
        result = conversion.write(FLAGS.target)
        contents = _contents(result.tflite, outputs)
    comparisons, samples, inputs = None, 0, None
    if FLAGS.verify is not None:
        inputs = load_inputs(Path(FLAGS.verify), conversion)
        with Progress(console=errors, transient=True, disable=not is_shown) as progress:
            task = progress.add_task("verifying", total=1.0)
            comparisons = verify(conversion, inputs, lambda share: progress.update(task, completed=share), FLAGS.target)
        result.notes.extend(untested(conversion))
        samples = len(next(iter(inputs.values())))
    elif FLAGS.calibration is not None and report is not None:
        inputs = load_inputs(Path(FLAGS.calibration), conversion)
    if report is not None:
        with errors.status("measuring for the report") if is_shown else nullcontext():
            from subbyte.reports import conversion_page

            html = conversion_page(conversion, result, Path(FLAGS.model).name, comparisons, inputs)
        contents, outputs = [*contents[: len(outputs)], html.encode()], [*outputs, report]
    summary = Summary.of(conversion, result) if FLAGS.format == "tflite" else None
    _write(outputs, contents)
    if FLAGS.json:
        print(to_json(result, comparisons, summary))
    else:
        print_layers(console, result)
        if summary is not None:
            print_summary(console, summary)
        if result.post_training is not None:
            print_post_training(console, result.post_training)
        if comparisons is not None:
            print_comparisons(console, comparisons, samples, FLAGS.target)
        _print_outputs(console, outputs)
    return 0 if all(comparison.passed for comparison in comparisons or []) else DIFFERS


def _write_packed(outputs: list[Path], report: Path | None) -> None:
    """Writes the layers of a model that is packed already, for firmware; raises ConversionError for other wishes."""
    if FLAGS.verify is not None or FLAGS.json or report is not None:
        raise ConversionError(
            f"{FLAGS.model} is packed already: there is nothing to --verify or to report as --json or --report"
        )
    _write(outputs, _contents(Path(FLAGS.model).read_bytes(), outputs))


def _start() -> Conversion:
    """The model in integers, as the flags ask."""
    io = FLAGS.io if FLAGS.format == "tflite" else FLAGS.io or "int8"
    calibration = None if FLAGS.calibration is None else read_arrays(Path(FLAGS.calibration))
    prefer = FLAGS.prefer if FLAGS.format == "tflite" and FLAGS.target == "packed" else None
    return Conversion.start(FLAGS.model, io, FLAGS.bits, FLAGS.first_last_bits or 8, calibration, prefer)


def _is_packed(path: Path) -> bool:
    """Whether a file is a `.tflite` whose layers are packed already, so that there is nothing to convert."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return data[4:8] == IDENTIFIER and Graph.read(data, str(path)).is_packed


def _outputs() -> list[Path]:
    """The files to write: none without --output. Raises ConversionError where that cannot be done."""
    form = FLAGS.format
    if form != "tflite" and (FLAGS.target != "packed" or FLAGS.io in (SAME, "float32", "uint8")):
        raise ConversionError(
            f"--format={form} is packed layers with int8 inputs and outputs: leave out --target and --io"
        )
    if FLAGS.output is None:
        return []
    output = Path(FLAGS.output)
    if form == "c" and output.suffix != ".c":
        raise ConversionError(f"--format=c writes a .c file and a .h file beside it: --output={output} is neither")
    if form == "bin" and output.suffix in (".tflite", ".c"):
        raise ConversionError(f"--format=bin writes an image, no {output.suffix}: give --output={output} another name")
    return [output, output.with_suffix(".h")] if form == "c" else [output]


def _check_outputs(outputs: list[Path], report: Path | None) -> None:
    """Raises ConversionError where one cannot be written, is read, or would be written twice."""
    named = dict(zip(("--output", "--output's header"), outputs, strict=False))
    if report is not None:
        named["--report"] = report
    check_outputs(named, {f"--{name}": Path(FLAGS[name].value) for name in _INPUTS if FLAGS[name].value is not None})


def _report_path() -> Path | None:
    """The page to write, if any. Raises ConversionError where that cannot be done."""
    if FLAGS.report is None:
        return None
    # Only now, since whoever writes no page needs none of it.
    from subbyte.reports.page import require as require_page

    report = Path(FLAGS.report)
    if report.suffix not in (".html", ".htm"):
        raise ConversionError(f"--report writes a page: --report={report} must end in .html")
    require_page()
    return report


def _contents(tflite: bytes, outputs: list[Path]) -> list[bytes]:
    """What each output holds, made from the packed model `tflite`."""
    if FLAGS.format == "tflite":
        return [tflite]
    if FLAGS.format == "bin":
        return [image(tflite)]
    c = c_source(tflite, outputs[0].stem if outputs else "model")
    return [c.source.encode(), c.header.encode()]


def _write(outputs: list[Path], contents: list[bytes]) -> None:
    for path, content in zip(outputs, contents, strict=False):  # no outputs: nothing is written
        write_atomically(path, content)


def _print_outputs(console: Console, outputs: list[Path]) -> None:
    if outputs:
        console.print(f"wrote {' and '.join(map(str, outputs))}", soft_wrap=True, highlight=False)
