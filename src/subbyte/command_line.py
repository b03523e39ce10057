"""What the commands of the package have in common: how they end.

Whatever goes wrong is one line on standard error, and the exit status says what kind it is.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from .extras import missing

#: Exit statuses: models differ beyond what is promised; the user's input is at fault; we are; Ctrl-C.
DIFFERS, BAD_INPUT, INTERNAL, INTERRUPTED = 1, 2, 70, 130

#: Set to anything, it shows where an internal error came from.
TRACEBACK = "SUBBYTE_TRACEBACK"


def convert_to_tflite() -> int:
    """Entry point of the console script: outside `subbyte.converter`, so that what that lacks is one line, too."""

    def work() -> int:
        from .converter.command import main

        return main()

    return guard("convert-to-tflite", work)


def guard(
    program: str,
    work: Callable[[], int],
    bad_input: type[Exception] | tuple[type[Exception], ...] = (),
    extra: str | None = None,
) -> int:
    """Does `work` and returns the exit status, having said in one line on standard error what went wrong.

    Args:
        program: its name, in front of the line.
        work: returns an exit status.
        bad_input: what `work` raises for the user's mistakes.
        extra: of the package, with all that the program needs, where it is more than a library's own.
    """
    stopped = _Interrupt()
    try:
        with stopped:
            return work()
    except bad_input as error:
        return tell(program, str(error), BAD_INPUT)
    except ModuleNotFoundError as error:
        return tell(program, missing(error, extra) or str(error), BAD_INPUT)
    except ImportError as error:
        return tell(program, str(error), BAD_INPUT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read standard output is gone: nobody is to be told
        return 128 + signal.SIGPIPE
    except (Exception, KeyboardInterrupt) as error:
        # Native code turns an interrupt into errors of its own.
        if stopped.happened or isinstance(error, KeyboardInterrupt):
            return tell(program, "interrupted", INTERRUPTED)
        if TRACEBACK in os.environ:
            traceback.print_exception(error)
        kind = type(error).__name__
        return tell(program, f"internal error, {TRACEBACK}=1 shows where; please report it: {kind}: {error}", INTERNAL)


def tell(program: str, message: str, status: int) -> int:
    """Prints one line on standard error; returns the exit status."""
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return status


class _Interrupt:
    """Knows in a `with` block whether Ctrl-C was pressed, in the main thread."""

    def __init__(self) -> None:
        self.happened = False

    def __enter__(self) -> None:
        try:
            self._before = signal.signal(signal.SIGINT, self._note)
        except ValueError:  # another thread than the main one
            self._before = None

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.happened = True
        raise KeyboardInterrupt
