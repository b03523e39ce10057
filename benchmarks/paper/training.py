"""Trains configurations, one on each core, and keeps the models: a rerun trains what is missing."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from subbyte.keyword_spotting.data import Dataset

from .configurations import Configuration


def data_digest(dataset: Dataset) -> str:
    """The digest of everything that is trained on."""
    train = dataset.train
    arrays = (train.keywords, train.labels, train.speech, train.noise)
    return hashlib.sha256(b"".join(hashlib.sha256(array).digest() for array in arrays)).hexdigest()[:16]


def train_missing(
    configurations: Sequence[Configuration], seeds: Sequence[int], folder: Path, data_dir: str | None, jobs: int
) -> dict[tuple[str, int], Path]:
    """The .keras file of each configuration's name and seed; its normalization lies beside it.

    Args:
        configurations, seeds: each configuration is trained with each seed, seed by seed.
        folder: where the models are kept, and the state of trainings that were interrupted.
        data_dir: recordings, see `Dataset.load`.
        jobs: trainings at a time, each on one thread: two side by side get further than one on two threads.
    """
    data = data_digest(Dataset.load(data_dir, progress=True))
    paths = {
        (chosen.name, seed): folder / f"{chosen.key(seed, data)}.keras" for seed in seeds for chosen in configurations
    }
    by_name = {chosen.name: chosen for chosen in configurations}
    missing = [key for key, path in paths.items() if not path.is_file()]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    context = multiprocessing.get_context("spawn")
    with Progress(*columns) as progress, ProcessPoolExecutor(jobs, mp_context=context, initializer=one_thread) as pool:
        task = progress.add_task("training", total=len(paths), completed=len(paths) - len(missing))
        running = {pool.submit(_train, by_name[name], seed, paths[name, seed], data_dir): (name, seed)
                   for name, seed in missing}  # fmt: skip
        for done in as_completed(running):
            name, seed = running[done]
            progress.console.print(f"{name}, seed {seed}: {done.result():.0f} s")
            progress.advance(task)
    return paths


def one_thread() -> None:
    """Holds a process that trains or measures to one thread: as many run side by side as there are cores."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _train(chosen: Configuration, seed: int, path: Path, data_dir: str | None) -> float:
    """Trains and saves one model; seconds."""
    import tensorflow as tf

    from subbyte.keyword_spotting.train import train

    trained = train(
        chosen.plan, Dataset.load(data_dir), seed, chosen.recipe, chosen.make_quantizer(), chosen.bits,
        state=path.parent / "state",
    )  # fmt: skip
    partial = path.with_name(f"{path.stem}.part.keras")
    trained.save(partial)
    partial.with_suffix(".npz").replace(path.with_suffix(".npz"))
    partial.replace(path)
    tf.keras.backend.clear_session()
    return trained.seconds
