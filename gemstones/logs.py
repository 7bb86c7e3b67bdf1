"""Logging of scripts: what a rule says, warns of or dies of goes to the rule's log file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from gemstones.errors import UserError

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def start(snakemake: Any) -> None:
    """Send logging, warnings and uncaught exceptions to `snakemake.log[0]`.

    A :class:`UserError` ends the script with the same single line in the log and on stderr; any other exception leaves
    its traceback in the log and one line on stderr that names the log. The exit status is 1 in both cases.
    """
    path = Path(snakemake.log[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="w")
    logging.basicConfig(handlers=[handler], level=logging.INFO, format=FORMAT, force=True)
    logging.captureWarnings(True)

    def log_exception(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, UserError):
            logging.error("%s", error)
            print(f"error: {error}", file=sys.stderr)
        elif issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
        else:
            logging.critical("uncaught exception", exc_info=(kind, error, traceback))
            print(
                f"error: {kind.__name__}: {str(error).splitlines()[0] if str(error) else ''} (see {path})",
                file=sys.stderr,
            )

    sys.excepthook = log_exception
