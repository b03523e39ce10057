"""Datasets of spoken keywords: recordings from a folder, or synthetic speech where there are none.

A data folder holds
    wakewords/       clips.csv (path, keyword, pseudo_speaker, split) and audio with one keyword a clip
    running_speech/  clips.csv (path, pseudo_speaker, split) and audio without any keyword
    noise/           audio of background sounds, any depth of folders
`split` is train, dev or test, and no pseudo_speaker may stand in two of them. Audio is mono, FLAC or WAV.

A recording is read once: what is kept is its mel energies (`features.mel_energies`), in a cache file under
$XDG_CACHE_HOME/subbyte that is named by the content of the tables and the code of the front end.
"""

from __future__ import annotations

import csv
import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import alignment, features
from .alignment import cut_windows, keyword_centre, pad_with_quiet
from .features import FRAMES, INPUTS, SAMPLE_RATE, log_mel, mel_energies
from .synthesize import synthesize

SPLITS = ("train", "dev", "test")
SPEEDS = ((1, 1), (10, 9), (10, 11))  # resampling ratios; training recordings are also heard slower and faster
VIEWS = (-6, -3, 0, 3, 6)  # frames from the centre: a detector sees a keyword in several windows, 30 ms apart
MARGIN = 40  # frames kept on both sides of a keyword's window
CONTEXT = FRAMES + 2 * MARGIN
AUDIO = (".flac", ".wav")

Energies = NDArray[np.float32]
Row = dict[str, str]


@dataclass(frozen=True)
class Split:
    """One part of a dataset, as mel energies.

    Attributes:
        keywords: float32 [clips, CONTEXT, MEL_BINS], the keyword's centre in the middle frame. In training, each
            recording comes in three speeds.
        labels: int64 [clips], an index into `Dataset.keywords`.
        speakers: str [clips].
        speech: float32 [frames, MEL_BINS], speech without keywords, recordings joined.
        noise: float32 [frames, MEL_BINS], likewise.
    """

    keywords: Energies
    labels: NDArray[np.int64]
    speakers: NDArray[np.str_]
    speech: Energies
    noise: Energies

    def inputs(self) -> NDArray[np.float32]:
        """The raw features [clips, INPUTS] of the centred windows of the keywords."""
        return log_mel(self.keywords[:, MARGIN : MARGIN + FRAMES : features.KEEP_EVERY]).reshape(-1, INPUTS)

    def views(self) -> NDArray[np.float32]:
        """The raw features [clips, len(VIEWS), INPUTS] of the windows around the centre that decide together."""
        windows = [self.keywords[:, MARGIN + shift : MARGIN + shift + FRAMES : features.KEEP_EVERY] for shift in VIEWS]
        return log_mel(np.stack(windows, axis=1)).reshape(-1, len(VIEWS), INPUTS)

    def background(self, step: int = FRAMES) -> NDArray[np.float32]:
        """The raw features [windows, INPUTS] of windows of running speech and noise, one every `step` frames."""
        streams = (self.speech, self.noise)
        windows = [cut_windows(stream, np.arange(0, len(stream) - FRAMES + 1, step)) for stream in streams]
        return log_mel(np.concatenate(windows)).reshape(-1, INPUTS)


@dataclass(frozen=True)
class Dataset:
    """Keywords with recordings to train, choose and report on.

    Attributes:
        keywords: class names in the order of a model's outputs; one more class, "other", follows them.
        source: a sentence for people: what the recordings are.
    """

    keywords: tuple[str, ...]
    source: str
    train: Split
    dev: Split
    test: Split

    @property
    def classes(self) -> int:
        """Outputs that a model for this dataset needs."""
        return len(self.keywords) + 1

    def split(self, name: str) -> Split:
        """The part called train, dev or test."""
        if name not in SPLITS:
            raise ValueError(f"no split {name!r}: choose one of {', '.join(SPLITS)}")
        part: Split = getattr(self, name)
        return part

    @classmethod
    def load(
        cls, data_dir: str | Path | None = None, progress: bool = False, needed: Sequence[str] = SPLITS
    ) -> Dataset:
        """Reads a data folder, from its cache where possible.

        Args:
            data_dir: the folder; default: the environment variable SUBBYTE_DATA; without either, synthetic speech.
            progress: shows a bar while recordings are read.
            needed: splits that must have clips; another may be empty.

        Raises:
            ValueError: the folder, a table, a column or a recording is missing or wrong.
        """
        return read_folder(data_folder(data_dir), progress, needed)


@dataclass(frozen=True)
class Recording:
    """One audio file of a data folder.

    Attributes:
        path: the file.
        group: who speaks, or the recording that a background sound is a take of; never in two splits.
        keyword: what is said; None: none of the keywords.
    """

    path: Path
    group: str
    keyword: str | None = None


@dataclass(frozen=True)
class Recordings:
    """The audio of one split, for what needs more than the energies in `Split`.

    Attributes:
        keywords: class names, as in `Dataset.keywords`.
        wakewords: in the order of `Split.keywords`, each once.
        speech: sentences without keywords.
        noise: background sounds.
    """

    keywords: tuple[str, ...]
    wakewords: tuple[Recording, ...]
    speech: tuple[Recording, ...]
    noise: tuple[Recording, ...]

    @classmethod
    def of(cls, split: str, data_dir: str | Path | None = None) -> Recordings:
        """The recordings of a split of a data folder; see `Dataset.load`."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
        root = data_folder(data_dir)
        tables = _read_tables(root, (split,))
        wakewords, speech = (
            tuple(
                Recording(Path(row["path"]), row["pseudo_speaker"], row.get("keyword"))
                for row in rows
                if row["split"] == split
            )
            for rows in tables
        )
        noise = tuple(Recording(path, _recording_of(path)) for path in _noises(root)[split])
        return cls(tuple(sorted({row["keyword"] for row in tables[0]})), wakewords, speech, noise)


def data_folder(data_dir: str | Path | None = None) -> Path:
    """`data_dir`; else the folder that SUBBYTE_DATA names; else that of synthetic speech."""
    root = data_dir or os.environ.get("SUBBYTE_DATA")
    return Path(root) if root else synthetic_folder()


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/subbyte, by default ~/.cache/subbyte."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "subbyte"


def synthetic_folder() -> Path:
    """The data folder of synthetic speech, written on the first call; that takes about a minute."""
    folder = cache_folder() / f"synthetic-{_digest([Path(synthesize.__code__.co_filename).read_bytes()])}"
    if not (folder / "wakewords" / "clips.csv").is_file():  # synthesize writes it at the end
        synthesize(folder)
    return folder


def read_folder(root: Path, progress: bool = False, needed: Sequence[str] = SPLITS) -> Dataset:
    """`Dataset.load` for a folder that is known."""
    wakewords, speech = _read_tables(root, needed)
    noises = _noises(root)
    keywords = tuple(sorted({row["keyword"] for row in wakewords}))
    code = [Path(str(module.__file__)).read_bytes() for module in (features, alignment)]
    sounds = sorted({path for part in noises.values() for path in part})
    listing = [f"{path.relative_to(root)} {path.stat().st_size}\n".encode() for path in sounds]
    tables = [(root / name / "clips.csv").read_bytes() for name in ("wakewords", "running_speech")]
    cache = cache_folder() / f"energies-{_digest([*code, *listing, *tables, Path(__file__).read_bytes()])}.npz"
    if not cache.is_file():
        arrays = _analyse(root, wakewords, speech, noises, keywords, progress)
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f"{cache.stem}.{os.getpid()}.npz")
        np.savez(partial, **arrays)  # type: ignore[arg-type]  # numpy's stub knows one keyword
        partial.replace(cache)
    with np.load(cache) as file:
        splits = {
            split: Split(**{field: file[f"{split}_{field}"] for field in Split.__dataclass_fields__})
            for split in SPLITS
        }
    return Dataset(keywords, _source(root, wakewords), **splits)


def read_audio(path: Path) -> NDArray[np.float32]:
    """Mono audio [samples] at 16 kHz, full scale 1; other rates are resampled, channels averaged.

    Raises:
        ValueError: the file is missing or no audio.
    """
    import soundfile
    from scipy.signal import resample_poly

    if not path.is_file():
        raise ValueError(f"recording {path} not found: clips.csv names it, the folder lacks it")
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise ValueError(f"recording {path} cannot be read: {error}") from error
    audio = audio.mean(axis=1)
    if rate != SAMPLE_RATE:
        common = np.gcd(rate, SAMPLE_RATE)
        audio = resample_poly(audio, SAMPLE_RATE // common, rate // common)
    return np.pad(audio, (0, max(0, 2 * features.FRAME_LENGTH - len(audio))))


def keyword_context(energies: Energies) -> Energies:
    """The CONTEXT frames around the keyword in a recording's energies [frames, MEL_BINS]; quiet beyond its ends."""
    start = round(keyword_centre(energies)) - CONTEXT // 2
    return pad_with_quiet(energies, CONTEXT)[CONTEXT + start : 2 * CONTEXT + start]


def noise_split(path: Path) -> str:
    """A split for a background sound: 3/5 train, 1/5 dev, 1/5 test, by a hash of its name before the last dash.

    Takes of one recording ("1-21189-A", "1-21189-B") stay together.
    """
    return (*("train",) * 3, "dev", "test")[zlib.crc32(_recording_of(path).encode()) % 5]


def _recording_of(path: Path) -> str:
    """The recording that a background sound is a take of."""
    return path.stem.rpartition("-")[0] or path.stem


def _noises(root: Path) -> dict[str, list[Path]]:
    """The background sounds of each split; a handful of sounds need not fill every split, which then borrows."""
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in sorted(path for path in (root / "noise").rglob("*") if path.suffix.lower() in AUDIO):
        found[noise_split(path)].append(path)
    some = next((part for part in found.values() if part), None)
    if some is None:
        raise ValueError(f"no background sounds in {root / 'noise'}: put FLAC or WAV files there")
    return {split: part or some for split, part in found.items()}


def _digest(contents: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]


def _source(root: Path, wakewords: Sequence[Row]) -> str:
    told = root / "SOURCE.txt"
    where = told.read_text(encoding="utf-8").strip() if told.is_file() else f"recordings from the folder {root}"
    return f"{len(wakewords)} {where}"


def _read_tables(root: Path, needed: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """The rows of wake words and of running speech, checked."""
    return (
        _read_table(root / "wakewords", ("keyword",), needed),
        _read_table(root / "running_speech", (), needed),
    )


def _read_table(folder: Path, columns: tuple[str, ...], needed: Sequence[str]) -> list[Row]:
    """The rows of clips.csv, checked; `path` becomes a full path."""
    table, columns = folder / "clips.csv", ("path", "pseudo_speaker", "split", *columns)
    if not table.is_file():
        raise ValueError(f"{table} not found: a data folder holds wakewords/, running_speech/ and noise/")
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise ValueError(f"{table} lacks the column {missing[0]!r}" if rows else f"{table} has no rows")
    home: dict[str, str] = {}
    for row in rows:
        if row["split"] not in SPLITS:
            raise ValueError(f"{table}: split of {row['path']} is {row['split']!r}, not one of {', '.join(SPLITS)}")
        if home.setdefault(row["pseudo_speaker"], row["split"]) != row["split"]:
            raise ValueError(f"{table}: speaker {row['pseudo_speaker']} stands in two splits; move all clips to one")
    if absent := set(needed) - set(home.values()):
        raise ValueError(f"{table} has no clips in the split {min(absent)!r}")
    return [row | {"path": str(folder / row["path"])} for row in rows]


def _speeds(path: str, split: str) -> list[Energies]:
    """The energies of a recording, and for training of its slower and its faster version."""
    from scipy.signal import resample_poly

    audio = read_audio(Path(path))
    ratios = SPEEDS if split == "train" else SPEEDS[:1]
    return [mel_energies(audio if up == down else resample_poly(audio, up, down)) for up, down in ratios]


def _analyse(
    root: Path,
    wakewords: list[Row],
    speech: list[Row],
    noises: dict[str, list[Path]],
    keywords: tuple[str, ...],
    progress: bool,
) -> dict[str, NDArray[Any]]:
    """Reads every recording; the arrays of each `Split` under "<split>_<field>"."""
    from rich.progress import track

    def each(items: Sequence[Any], name: str) -> Iterable[Any]:
        return track(items, f"Reading {name}", disable=not progress, transient=True)

    # An empty array each, for a split without clips.
    nothing = {
        "keywords": np.zeros((0, CONTEXT, features.MEL_BINS), np.float32),
        "labels": np.zeros(0, np.int64),
        "speakers": np.zeros(0, np.str_),
        "speech": np.zeros((0, features.MEL_BINS), np.float32),
        "noise": np.zeros((0, features.MEL_BINS), np.float32),
    }
    found: dict[str, list[Any]] = {f"{split}_{field}": [nothing[field]] for split in SPLITS for field in nothing}
    for row in each(wakewords, "wake words"):
        for energies in _speeds(row["path"], row["split"]):
            found[f"{row['split']}_keywords"].append(keyword_context(energies)[np.newaxis])
            found[f"{row['split']}_labels"].append([keywords.index(row["keyword"])])
            found[f"{row['split']}_speakers"].append([row["pseudo_speaker"]])
    for row in each(speech, "running speech"):
        found[f"{row['split']}_speech"].extend(_speeds(row["path"], row["split"]))
    for name, path in each([(split, path) for split in SPLITS for path in noises[split]], "background sounds"):
        found[f"{name}_noise"].append(mel_energies(read_audio(path)))
    return {name: np.concatenate(parts) for name, parts in found.items()}
