"""Where log lines go: errors to stderr; everything, one JSON object a line, to a file where there is one."""

import logging
import sys
from pathlib import Path
from typing import TextIO

import structlog


def log_to(stream: TextIO, level: int) -> None:
    """Send log lines of this level and above there, as JSON unless it is a terminal or stderr."""
    # aiormq says at ERROR what every failed connect raises anyway; the error that ends the attempts is ours to tell.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    readable = stream is sys.stderr
    renderer = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if readable
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if readable else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )


def log_errors_to_stderr() -> None:
    """Only what an operator must look at."""
    log_to(sys.stderr, logging.ERROR)


def log_everything_to(path: Path) -> None:
    """Every line, for later."""
    log_to(path.open("a", encoding="utf-8", buffering=1), logging.DEBUG)


def log_for_a_service() -> None:
    """What a service manager collects: JSON on stdout from INFO on."""
    log_to(sys.stdout, logging.INFO)
