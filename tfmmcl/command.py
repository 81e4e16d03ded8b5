"""What all commands share: one-sentence errors, exit codes, and interrupts that clean up."""

from __future__ import annotations

import argparse
import os
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
    except OSError as error:
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _stop(f"{where}{error.strerror}.", INPUT_ERROR)
    sys.exit(0)


def _stop(sentence: str, code: int) -> NoReturn:
    print(f"{os.path.basename(sys.argv[0])}: {sentence}", file=sys.stderr)
    sys.exit(code)
