"""What all commands share: one-sentence errors, exit codes, and interrupts that clean up."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from tfmmcl.errors import InputError, InterruptedTraining, TrainingError

INPUT_ERROR = 2
TRAINING_ERROR = 3
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Prints the sentence and exits with code 2."""
        self.exit(INPUT_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run(main: Callable[[], None]) -> NoReturn:
    """Runs a command's `main` and exits: 0, 2 for a mistake in the input, 3 for failed training, 130 if interrupted.

    Training that was asked to stop, and saved where it stood, exits with 128 and the signal's number: 130 or 143.
    A mistake, a full disk or a missing permission is one sentence on standard error, without a traceback. Termination
    is handled like Ctrl-C, so that cleaning up happens.
    """
    # TensorFlow's information messages are for its developers; warnings and errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        _stop(str(error), INPUT_ERROR)
    except TrainingError as error:
        _stop(str(error), TRAINING_ERROR)
    except InterruptedTraining as stopped:
        _stop(str(stopped), stopped.exit_code)
    except KeyboardInterrupt:
        _stop("interrupted.", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if (sentence := _trouble(error)) is None:
            raise
        _stop(sentence, INPUT_ERROR)
    sys.exit(0)


def _trouble(error: Exception) -> str | None:
    """Returns what a disk or the memory had to say, directly or through TensorFlow; None if it is about neither."""
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}."
    advice = "expected more of it, a smaller data.batch_size, or encoder.signal.recompute=true."
    if isinstance(error, MemoryError):
        return f"not enough memory; {advice}"
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return None
    if "OOM when allocating" in error.message or "Out of memory" in error.message:
        return f"not enough memory on the device; {advice}"
    reasons = "|".join(re.escape(os.strerror(number)) for number in errno.errorcode)
    if found := re.search(rf"(?:^|}}}} )([^;{{}}\n]*); ({reasons})", error.message):
        return f"{found[1]}: {found[2]}."
    return None


def _stop(sentence: str, code: int) -> NoReturn:
    print(f"{os.path.basename(sys.argv[0])}: {sentence}", file=sys.stderr)
    sys.exit(code)
