"""Detects keywords in audio as it comes, in constant memory.

    detector = StreamingDetector(kernels.Interpreter("kws.tflite"), Normalization.load("kws.npz"))
    for chunk in microphone:
        for detection in detector.process(chunk):
            print(detection.keyword, detection.time_s)

The decision of the paper (arXiv 2207.06920, section 2): the model sees the last 0.8 s of features every 30 ms; its
posteriors are averaged over the last 150 ms; the likeliest keyword is told if its average reaches a threshold; then the
detector keeps silent for a second. Features of a window, a few outputs and the end of the silence are all that it
remembers: whatever it heard is forgotten within a second.

The defaults are the decision of `Split.views` and `metrics.moving_average` on clips, bit for bit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .evaluate import dequantize, quantize
from .features import (
    FRAME_LENGTH,
    FRAME_STEP,
    FRAMES,
    INPUTS,
    KEEP_EVERY,
    MEL_BINS,
    SAMPLE_RATE,
    Normalization,
    log_mel,
    mel_energies,
)
from .metrics import Floats, moving_average

SPAN = FRAMES - KEEP_EVERY + 1  # frames from the first to the last that a window keeps
BLOCK = 100  # frames analysed at once, which bounds the memory however long a chunk is


def seconds(frame: int | NDArray[np.int64]) -> Any:
    """The time when the last sample of a frame was heard, in seconds from the beginning of the stream."""
    return (frame * FRAME_STEP + FRAME_LENGTH) / SAMPLE_RATE


@dataclass(frozen=True)
class Detection:
    """A keyword that was heard.

    Attributes:
        keyword: its name.
        time_s: when it was told, in seconds of audio from the beginning of the stream; the keyword's centre lies about
            half a second before.
        score: logarithm of the mean posterior, at least the threshold.
    """

    keyword: str
    time_s: float
    score: float

    def __str__(self) -> str:
        return f"{self.time_s:9.2f} s  {self.keyword}  {math.exp(self.score):.3f}"


@dataclass(frozen=True)
class Track:
    """What a detector thinks all along a stream, before any threshold.

    Attributes:
        frames: int64 [steps], the newest frame of each step; `seconds` gives the time.
        scores: float64 [steps, keywords], logarithms of the mean posteriors.
    """

    frames: NDArray[np.int64]
    scores: NDArray[np.float64]


class StreamingDetector:
    """Detects keywords in a stream.

    Args:
        interpreter: `subbyte.kernels.Interpreter` or a stock one, of a model from normalised features [1, 540] to
            logits [1, keywords + 1], with float or quantized inputs and outputs.
        normalization: of the model.
        keywords: names of the outputs but the last; default: those that the normalization knows.
        threshold: logarithm of the mean posterior from which on a keyword is told.
        hop: frames of 10 ms between two runs of the model.
        average: frames over whose model runs the posterior is averaged, 150 ms; a longer hop averages fewer.
        lockout: frames after a detection in which nothing is told.

    Raises:
        ValueError: the model takes or gives something else, or a number is out of range.
    """

    def __init__(
        self,
        interpreter: Any,
        normalization: Normalization,
        keywords: Sequence[str] | None = None,
        threshold: float = math.log(0.5),
        hop: int = 3,
        average: int = 15,
        lockout: int = 100,
    ) -> None:
        if hop < 1 or average < 1 or lockout < 0:
            raise ValueError(f"hop and average must be at least one frame, lockout none: {hop}, {average}, {lockout}")
        if math.isnan(threshold):
            raise ValueError("the threshold must be a number, the logarithm of a posterior")
        self.keywords = tuple(normalization.keywords if keywords is None else keywords)
        self.threshold, self.hop, self.lockout = threshold, hop, lockout
        self.outputs = max(1, round(average / hop))
        self._interpreter, self._normalization = interpreter, normalization
        interpreter.allocate_tensors()
        self._source, self._sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        if tuple(self._source["shape"]) != (1, INPUTS):
            shape = self._source["shape"].tolist()
            raise ValueError(f"the model takes {shape}, not [1, {INPUTS}]: it is no keyword model")
        if not self.keywords:
            raise ValueError(
                "the normalization file does not name the keywords: give them, in the order of the outputs"
            )
        if tuple(self._sink["shape"]) != (1, len(self.keywords) + 1):
            named = f"{len(self.keywords)} keywords ({', '.join(self.keywords)}) and other"
            raise ValueError(f"the model has {self._sink['shape'][-1]} outputs, but there are {named}")
        self.reset()

    def reset(self) -> None:
        """Forgets everything heard; the next sample is the first of a new stream."""
        self._samples = np.empty(0)  # fewer than a frame, of frames to come
        self._ring = np.zeros((SPAN, MEL_BINS), np.float32)  # normalised features; frame n lies in row n modulo SPAN
        self._frames = 0  # heard so far
        self._logits: deque[NDArray[np.float32]] = deque(maxlen=self.outputs)
        self._silent_until = 0  # a frame

    def process(self, audio: Floats) -> list[Detection]:
        """Hears the next samples of the stream.

        Args:
            audio: [samples], any number of them, mono at 16 kHz, full scale 1.

        Returns:
            What is detected in them.

        Raises:
            ValueError: `audio` has another shape or holds integers.
        """
        found = []
        for energies in self._analyse(audio):
            for frame, scores in self._steps(energies):
                best = int(np.argmax(scores))
                if frame >= self._silent_until and scores[best] >= self.threshold:
                    self._silent_until = frame + self.lockout
                    found.append(Detection(self.keywords[best], seconds(frame), float(scores[best])))
        return found

    def track(self, energies: Floats) -> Track:
        """All scores of a whole stream, by the steps of `process`; forgets what was heard before and afterwards.

        Args:
            energies: [frames, MEL_BINS], `mel_energies` of the stream; several detectors can so share them.
        """
        self.reset()
        steps = list(self._steps(energies))
        self.reset()
        scores = [scores for _, scores in steps] or np.empty((0, len(self.keywords)))
        return Track(np.array([frame for frame, _ in steps], np.int64), np.asarray(scores, np.float64))

    def _analyse(self, audio: Floats) -> Iterator[NDArray[np.float32]]:
        """The mel energies [frames, MEL_BINS] of the frames that `audio` completes, in blocks."""
        audio = np.asarray(audio)
        if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
            raise ValueError(f"audio must be floating-point [samples], got {audio.dtype} {audio.shape}")
        for first in range(0, len(audio), BLOCK * FRAME_STEP):
            self._samples = np.concatenate([self._samples, audio[first : first + BLOCK * FRAME_STEP]])
            if len(self._samples) >= FRAME_LENGTH:
                energies = mel_energies(self._samples)
                self._samples = self._samples[len(energies) * FRAME_STEP :].copy()
                yield energies

    def _steps(self, energies: Floats) -> Iterator[tuple[int, Floats]]:
        """The newest frame and the scores [keywords] of each step that the next frames complete."""
        for row in self._normalization(log_mel(energies)):
            newest, self._frames = self._frames, self._frames + 1
            self._ring[newest % SPAN] = row
            if newest < SPAN - 1 or (newest - (SPAN - 1)) % self.hop:
                continue
            window = self._ring[np.arange(newest + 1, newest + 1 + SPAN, KEEP_EVERY) % SPAN]
            self._logits.append(self._run(window.reshape(INPUTS)))
            if len(self._logits) == self.outputs:
                yield newest, moving_average(np.stack(self._logits))[:-1]

    def _run(self, inputs: Floats) -> NDArray[np.float32]:
        """The model's logits [keywords + 1] of one window."""
        self._interpreter.set_tensor(self._source["index"], quantize(inputs[np.newaxis], self._source))
        self._interpreter.invoke()
        return dequantize(self._interpreter.get_tensor(self._sink["index"])[0], self._sink)
