"""The command `listen`: tells the keywords in a recording or before a microphone as they are heard.

Audio is read, resampled and detected block by block, so that a recording may be of any length.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .detector import Detection, StreamingDetector
from .features import SAMPLE_RATE, Normalization

Audio = NDArray[np.float32]

BLOCK_S = 0.1  # of audio read at once; what a microphone adds to the delay


@dataclass(frozen=True)
class Usage:
    """What detection cost.

    Attributes:
        audio_s: seconds of audio heard.
        elapsed_s: seconds in which the detector computed, reading and waiting for audio not included.
        processor_s: processor time of all threads in them.
    """

    audio_s: float
    elapsed_s: float
    processor_s: float

    def __str__(self) -> str:
        audio = max(self.audio_s, 1.0 / SAMPLE_RATE)
        return (
            f"{self.audio_s:.1f} s of audio, real-time factor {self.elapsed_s / audio:.4f}, "
            f"{1e3 * self.processor_s / audio:.2f} ms of processor time per second of audio"
        )


def listen(detector: StreamingDetector, blocks: Iterable[Audio], tell: Callable[[Detection], None]) -> Usage:
    """Hands blocks of audio to the detector until they end or the user interrupts, and tells what it detects."""
    samples, elapsed, processor = 0, 0.0, 0.0
    try:
        for block in blocks:
            begin, processor_begin = time.perf_counter(), time.process_time()
            found = detector.process(block)
            elapsed += time.perf_counter() - begin
            processor += time.process_time() - processor_begin
            samples += len(block)
            for detection in found:
                tell(detection)
    except KeyboardInterrupt:
        pass  # the way to end listening to a microphone
    return Usage(samples / SAMPLE_RATE, elapsed, processor)


def load_detector(
    model: str | Path,
    normalization: str | Path | None = None,
    keywords: Sequence[str] | None = None,
    threshold: float = 0.8,
    **settings: int,
) -> StreamingDetector:
    """The detector of a model file.

    Args:
        model: a .tflite file, which runs in `subbyte.kernels.Interpreter`.
        normalization: default: the file beside the model, of the same name with .npz.
        keywords: see StreamingDetector.
        threshold: of the mean posterior, above 0, at most 1.
        **settings: hop, average and lockout of StreamingDetector.

    Raises:
        ValueError: a file is missing or is something else, or a setting is out of range.
    """
    from subbyte import kernels

    path = Path(model)
    if not path.is_file():
        raise ValueError(f"model file {path} not found")
    if path.suffix == ".keras":
        raise ValueError(f"{path} is a Keras model: convert it first, convert-to-tflite --model={path} --output=...")
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"the threshold is a posterior, above 0 and at most 1, not {threshold:g}")
    found = Normalization.load(normalization or path.with_suffix(".npz"))
    try:
        interpreter = kernels.Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no model that the interpreter runs: {str(error).splitlines()[0]}") from error
    return StreamingDetector(interpreter, found, keywords, math.log(threshold), **settings)


def file_blocks(path: str | Path) -> Iterator[Audio]:
    """The audio of a WAV or FLAC file, mono at 16 kHz, in blocks of BLOCK_S; channels are averaged.

    Raises:
        ValueError: the file is missing or no audio.
        ImportError: the file has another rate, and soxr is not installed.
    """
    import soundfile

    if not Path(path).is_file():
        raise ValueError(f"recording {path} not found")
    try:
        with soundfile.SoundFile(path) as file:
            resample = _resampler(file.samplerate, f"{path} has {file.samplerate} samples a second")
            while len(block := file.read(round(BLOCK_S * file.samplerate), dtype="float32", always_2d=True)):
                yield resample(block.mean(axis=1), False)
            yield resample(np.empty(0, np.float32), True)
    except soundfile.SoundFileError as error:
        raise ValueError(f"recording {path} cannot be read: {error}") from error


def microphone_blocks(device: str | None = None, sounddevice: Any = None) -> Iterator[Audio]:
    """What a microphone hears, mono at 16 kHz, in blocks of BLOCK_S, without an end.

    Args:
        device: its number or a part of its name; default: the system's.
        sounddevice: the module of this name; default: it is imported.

    Raises:
        ImportError: sounddevice, or the library PortAudio that it needs, is not installed.
        ValueError: there is no such microphone.
    """
    sounddevice = sounddevice or _import_sounddevice()
    chosen = int(device) if device is not None and device.isdigit() else device
    try:
        rate = _microphone_rate(sounddevice, chosen)
        resample = _resampler(rate, f"the microphone gives {rate} samples a second")
        with sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32", device=chosen) as stream:
            while True:
                block, _overflowed = stream.read(round(BLOCK_S * rate))
                yield resample(np.array(block[:, 0]), False)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ValueError(f"microphone {device or '(default)'}: {error}") from error


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise ImportError("a microphone needs sounddevice: pip install 'subbyte[listen]'") from error
    except OSError as error:  # sounddevice is there, the library that it loads is not
        raise ImportError(
            f"a microphone needs the library PortAudio, such as the package libportaudio2: {error}"
        ) from error
    return sounddevice


def _microphone_rate(sounddevice: Any, device: int | str | None) -> int:
    """16 kHz if the microphone can, else its own rate."""
    try:
        sounddevice.check_input_settings(device=device, channels=1, dtype="float32", samplerate=SAMPLE_RATE)
    except sounddevice.PortAudioError:
        return int(sounddevice.query_devices(device, "input")["default_samplerate"])
    return SAMPLE_RATE


def _resampler(rate: int, what: str) -> Callable[[Audio, bool], Audio]:
    """A function of the next block, and whether it is the last, that gives it at 16 kHz."""
    if rate == SAMPLE_RATE:
        return lambda block, last: block
    try:
        import soxr
    except ImportError as error:
        raise ImportError(f"{what}, not {SAMPLE_RATE}: pip install 'subbyte[listen]', or resample it") from error
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def resample(block: Audio, last: bool) -> Audio:
        resampled: Audio = stream.resample_chunk(block, last=last)
        return resampled

    return resample


def first_seconds(blocks: Iterable[Audio], seconds: float) -> Iterator[Audio]:
    """The first `seconds` of `blocks`."""
    left = round(seconds * SAMPLE_RATE)
    for block in blocks:
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return
