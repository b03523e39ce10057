"""Speech without recordings: any phrases in many voices by espeak-ng, written as a dataset folder.

espeak-ng comes as a shared library in the package `espeakng-loader` and is called through ctypes. A voice is an accent
of English, a speaker variant, a pitch and a speed; accent and variant together name the speaker, and a speaker stands
in one split only. Synthetic speech is far more regular than people: use it to see the tools work, and quote accuracy
on recordings.
"""

from __future__ import annotations

import csv
import ctypes
import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .features import SAMPLE_RATE

Audio = NDArray[np.float32]

PHRASES = {
    "alexa": "alexa",
    "computer": "computer",
    "jarvis": "jarvis",
    "smart_mirror": "smart mirror",
    "snowboy": "snowboy",
    "view_glass": "view glass",
}
SENTENCES = tuple(
    f"{opening} {thing} {ending}"
    for (opening, ending), thing in zip(
        itertools.product(
            ("could I have", "please bring me", "I would like", "she never ordered", "do they still sell"),
            ("with a little sugar", "before the train leaves", "and two slices of toast", "for the whole table"),
        ),
        itertools.cycle(("a black coffee", "some green tea", "the soup of the day", "an orange juice", "warm milk")),
        strict=False,
    )
)
ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5")
SPLITS = ("train", "train", "train", "dev", "test")  # of consecutive speakers

# espeak-ng/speak_lib.h
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH = 1, 3
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """One manner of speaking.

    Attributes:
        accent: an espeak-ng language such as "en-us".
        variant: an espeak-ng speaker variant such as "f3".
        pitch: 0 to 100; espeak-ng's own default is 50.
        rate: words a minute, 80 to 450.
    """

    accent: str
    variant: str
    pitch: int = 50
    rate: int = 170

    @property
    def speaker(self) -> str:
        """The name that must not stand in two splits."""
        return f"{self.accent}+{self.variant}"


def speakers(count: int) -> list[tuple[str, str]]:
    """The first `count` pairs of accent and variant, accents and sexes mixed early.

    Raises:
        ValueError: there are not as many.
    """
    pairs = list(itertools.product(ACCENTS, VARIANTS))
    if not 0 < count <= len(pairs):
        raise ValueError(f"there are 1 to {len(pairs)} synthetic speakers, not {count}")
    return [pairs[(index * 37) % len(pairs)] for index in range(count)]  # 37 and 104 have no common factor


@functools.cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    """The initialised library and its sample rate."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError("synthetic speech needs espeakng_loader: pip install 'subbyte[kws]'") from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = str(espeakng_loader.get_data_path()).encode()
    rate = int(library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT))
    if rate <= 0:
        raise RuntimeError(f"espeak-ng did not start with its data in {data.decode()}: reinstall espeakng-loader")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # voices flutter and breathe at random
    return library, rate


def speak(text: str, voice: Voice) -> Audio:
    """Speech [samples] at 16 kHz, full scale 1.

    Raises:
        ValueError: espeak-ng does not know the voice, or says nothing for this text.
    """
    from scipy.signal import resample_poly

    library, rate = _espeak()
    pieces: list[NDArray[np.int16]] = []

    @_CALLBACK
    def collect(samples: Any, count: int, _events: int) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)
    if library.espeak_SetVoiceByName(voice.speaker.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {voice.speaker!r}: see ACCENTS and VARIANTS")
    library.espeak_SetParameter(_PITCH, voice.pitch, 0)
    library.espeak_SetParameter(_RATE, voice.rate, 0)
    encoded = text.encode()
    library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, _UTF8, None, None)
    if not pieces:
        raise ValueError(f"espeak-ng said nothing for the text {text!r}")
    common = np.gcd(rate, SAMPLE_RATE)
    return resample_poly(np.concatenate(pieces) / 32768.0, SAMPLE_RATE // common, rate // common).astype(np.float32)


def colored_noise(samples: int, slope: float, rng: np.random.Generator) -> Audio:
    """Gaussian noise [samples] of peak 1 whose power falls with frequency to the power `slope` (0 white, 1 pink)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1.0) ** (-slope / 2)
    noise = np.fft.irfft(spectrum, samples)
    return (noise / np.abs(noise).max()).astype(np.float32)


def in_a_room(speech: Audio, rng: np.random.Generator) -> Audio:
    """`speech` as a microphone across a room might hear it: an echo tail, quiet around it, noise and another level."""
    from scipy.signal import fftconvolve

    tail = rng.standard_normal(SAMPLE_RATE // 4) * np.exp(-np.arange(SAMPLE_RATE // 4) / rng.uniform(200, 1200))
    response = np.concatenate([[1.0], rng.uniform(0.0, 0.15) * tail])
    heard = fftconvolve(speech, response)
    heard = np.pad(heard, tuple(rng.integers(SAMPLE_RATE // 10, SAMPLE_RATE // 2, 2)))
    heard *= rng.uniform(0.05, 0.7) / np.abs(heard).max()
    noise = colored_noise(len(heard), rng.uniform(0.0, 2.0), rng)
    return (heard + noise * 10.0 ** rng.uniform(-4.0, -2.0)).astype(np.float32)


def _voice(accent: str, variant: str, rng: np.random.Generator) -> Voice:
    return Voice(accent, variant, pitch=int(rng.integers(25, 76)), rate=int(rng.integers(130, 211)))


def _write(path: Path, audio: Audio) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(audio, -1.0, 1.0), SAMPLE_RATE, subtype="PCM_16")


def _write_table(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def synthesize(
    folder: str | Path,
    phrases: dict[str, str] | None = None,
    sentences: Iterable[str] = SENTENCES,
    speaker_count: int = 100,
    takes: int = 2,
    noises: int = 20,
    seed: int = 0,
) -> Path:
    """Writes a dataset folder: wakewords/, running_speech/ and noise/ of FLAC files with their clips.csv.

    Args:
        folder: where to write; the three folders appear in it.
        phrases: keyword to the text that is spoken for it.
        sentences: running speech without the keywords; each speaker says one.
        speaker_count: distinct speakers; three in five train, one in five each dev and test.
        takes: recordings of each phrase by each speaker, each with another pitch, speed and room.
        noises: background recordings of 5 s.
        seed: of everything random. The same seed in a fresh process writes the same files; within a process espeak-ng
            goes on where its last utterance left its voice.

    Returns:
        `folder`.
    """
    folder, rng, said = Path(folder), np.random.default_rng(seed), itertools.cycle(sentences)
    tables: dict[str, list[dict[str, object]]] = {"wakewords": [], "running_speech": []}
    for index, (accent, variant) in enumerate(speakers(speaker_count)):
        rest = {"pseudo_speaker": f"{accent}+{variant}", "split": SPLITS[index % len(SPLITS)]}
        for keyword, text in (PHRASES if phrases is None else phrases).items():
            for take in range(takes):
                audio = in_a_room(speak(text, _voice(accent, variant, rng)), rng)
                row = {"path": f"audio/{keyword}/{index}_{take}.flac", "keyword": keyword, "n_samples": len(audio)}
                _write(folder / "wakewords" / str(row["path"]), audio)
                tables["wakewords"].append(row | rest)
        audio = in_a_room(speak(next(said), _voice(accent, variant, rng)), rng)
        row = {"path": f"audio/{index}.flac", "n_samples": len(audio)}
        _write(folder / "running_speech" / str(row["path"]), audio)
        tables["running_speech"].append(row | rest)
    for index in range(noises):
        noise = colored_noise(5 * SAMPLE_RATE, rng.uniform(0.0, 2.5), rng) * np.float32(rng.uniform(0.02, 0.5))
        _write(folder / "noise" / "audio" / f"{index}.flac", noise)
    (folder / "SOURCE.txt").write_text("recordings of synthetic speech, made by espeak-ng on this machine\n")
    for name, rows in tables.items():
        _write_table(folder / name / "clips.csv", rows)
    return folder
