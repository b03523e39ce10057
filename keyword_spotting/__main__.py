"""python -m subbyte.keyword_spotting train|evaluate|report|demo|listen"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from subbyte.command_line import guard

from .models import NAMES
from .train import TrainingRecipe, recipe_for, train


def parser() -> argparse.ArgumentParser:
    """The commands and their flags."""
    top = argparse.ArgumentParser(prog="python -m subbyte.keyword_spotting", description="Small-footprint wake words.")
    commands = top.add_subparsers(dest="command", required=True)
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--data_dir", help="recordings; default: $SUBBYTE_DATA, else synthetic speech is made")

    add = commands.add_parser("train", parents=[everywhere], help="train a model")
    add.add_argument("--model", required=True, choices=NAMES)
    add.add_argument("--bits", type=int, choices=range(1, 9), help="of the weights, in place of the model's own")
    add.add_argument("--output", required=True, help="the .keras file; its normalization goes beside it as .npz")
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--updates", type=int, help="of stage 1; default: those of the model's recipe")

    add = commands.add_parser("evaluate", parents=[everywhere], help="report the accuracy of a model file")
    add.add_argument("--model", required=True, help="a .keras or .tflite file")
    add.add_argument("--normalization", help="default: the .npz beside the model")
    add.add_argument("--split", default="test", choices=("train", "dev", "test"))

    add = commands.add_parser("report", parents=[everywhere], help="compare model files in one HTML page")
    add.add_argument("--models", required=True, nargs="+", help=".tflite files, packed or stock")
    add.add_argument("--float", help="a float .keras file, which the others are compared with; else the first of them")
    add.add_argument("--normalization", help="of all models; default: the .npz beside each")
    add.add_argument("--split", default="test", choices=("train", "dev", "test"))
    add.add_argument("--output", required=True, help="the .html file")

    add = commands.add_parser("demo", parents=[everywhere], help="train, pack, check and compare float and 4 bits")
    add.add_argument("--output_dir", default="build/demo")
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--updates", type=int, default=TrainingRecipe.updates, help="of stage 1; default: %(default)s")

    _add_listen(commands.add_parser("listen", help="tell the keywords in a recording or before a microphone"))
    return top


def _add_listen(add: argparse.ArgumentParser) -> None:
    """Adds the flags of the command `listen`."""
    add.add_argument("--model", required=True, help="a .tflite file")
    add.add_argument("--normalization", help="default: the .npz beside the model")
    add.add_argument("--keywords", help="names of the outputs, with commas; default: those in the normalization file")
    source = add.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav", help="a WAV or FLAC file, of any rate and length")
    source.add_argument("--microphone", action="store_true", help="listen until interrupted")
    add.add_argument("--device", help="number or name of the microphone; default: the system's")
    add.add_argument("--seconds", type=float, help="stop after so much audio")
    add.add_argument("--threshold", type=float, default=0.8, help="of the mean posterior; default: %(default)s")
    add.add_argument(
        "--hop", type=int, default=3, help="10 ms frames from one run of the model to the next: %(default)s"
    )
    add.add_argument("--average", type=int, default=15, help="10 ms frames whose posteriors are averaged: %(default)s")
    add.add_argument("--lockout", type=int, default=100, help="silent 10 ms frames after a detection: %(default)s")


def run_train(flags: argparse.Namespace) -> None:
    """Trains, saves, and reports on the dev split."""
    from subbyte.console import console as make_console

    from .data import Dataset
    from .evaluate import keras_logits, report, report_table
    from .metrics import moving_average

    if not flags.output.endswith(".keras"):
        raise ValueError(f"--output={flags.output}: the name must end in .keras")
    dataset = Dataset.load(flags.data_dir, progress=True)
    recipe, state = recipe_for(flags.model), f"{flags.output}.state"
    if flags.updates is not None:
        recipe = dataclasses.replace(recipe, updates=flags.updates)
    trained = train(flags.model, dataset, flags.seed, recipe, bits=flags.bits, progress=True, state=state)
    trained.save(flags.output)
    logits = moving_average(keras_logits(trained.model, trained.normalization(dataset.dev.views())))
    console = make_console()
    console.print(report_table([(flags.model, report(logits, dataset.dev))], f"dev split, {dataset.source}"))
    console.print(f"Wrote {flags.output} after {trained.seconds:.0f} s of training.")


def run_evaluate(flags: argparse.Namespace) -> None:
    """Reports a model file on one split."""
    from subbyte.console import console as make_console

    from .data import Dataset
    from .evaluate import file_logits, report, report_table
    from .metrics import moving_average

    dataset = Dataset.load(flags.data_dir, progress=True, needed=(flags.split,))
    split = dataset.split(flags.split)
    logits = moving_average(file_logits(flags.model, split.views(), flags.normalization))
    make_console().print(report_table([(flags.model, report(logits, split))], f"{flags.split} split, {dataset.source}"))


def run_report(flags: argparse.Namespace) -> None:
    """Writes a page that compares model files on one split."""
    from subbyte.console import console as make_console
    from subbyte.converter import check_outputs, write_atomically
    from subbyte.reports import page

    from .data import Dataset
    from .report import read, report_page

    output, console = Path(flags.output), make_console()
    if output.suffix not in (".html", ".htm"):
        raise ValueError(f"--output={output}: the page's name must end in .html")
    paths = ([flags.float] if flags.float else []) + flags.models
    check_outputs({"--output": output}, {f"--models: {path}": Path(path) for path in paths})
    page.require()
    stems = [Path(path).stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else paths
    if len(set(names)) < len(names):
        raise ValueError("--models: a file is named twice")
    dataset = Dataset.load(flags.data_dir, progress=True, needed=(flags.split,))
    split = dataset.split(flags.split)
    with console.status("running the models"):
        models = [read(path, split, name, flags.normalization) for path, name in zip(paths, names, strict=True)]
        html = report_page(models, split, f"Wake words, {flags.split} split", dataset.source)
    write_atomically(output, html.encode())
    console.print(f"Wrote {output}", soft_wrap=True, highlight=False)


def run_demo(flags: argparse.Namespace) -> None:
    """Trains, packs and compares two models: see `demo.demo`."""
    from .demo import demo

    demo(flags.output_dir, flags.data_dir, flags.seed, flags.updates)


def run_listen(flags: argparse.Namespace) -> None:
    """Prints detections as they come, and at the end what they cost."""
    from .listen import file_blocks, first_seconds, listen, load_detector, microphone_blocks

    keywords = flags.keywords.split(",") if flags.keywords else None
    settings = {name: getattr(flags, name) for name in ("hop", "average", "lockout")}
    detector = load_detector(flags.model, flags.normalization, keywords, flags.threshold, **settings)
    blocks = microphone_blocks(flags.device) if flags.microphone else file_blocks(flags.wav)
    if flags.seconds is not None:
        blocks = first_seconds(blocks, flags.seconds)
    print(listen(detector, blocks, lambda found: print(found, flush=True)))


COMMANDS = {
    "train": run_train,
    "evaluate": run_evaluate,
    "report": run_report,
    "demo": run_demo,
    "listen": run_listen,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: see `subbyte.command_line`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    flags = parser().parse_args(arguments)

    def work() -> int:
        COMMANDS[flags.command](flags)
        return 0

    return guard(
        f"keyword_spotting {flags.command}", work, ValueError, extra="listen" if flags.command == "listen" else "kws"
    )


if __name__ == "__main__":
    with contextlib.suppress(ImportError):  # where conversion is not installed, neither is what would log
        from subbyte.converter import silence_native_logs

        silence_native_logs()
    sys.exit(main())
