"""Logs of the server: one JSON object a line, for people and for collectors."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Any, TextIO

LOGGER = logging.getLogger("autosplit.serving")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, and the event's own fields.

    >>> record = logging.LogRecord("autosplit.serving", logging.INFO, "", 0, "listening", (), None)
    >>> record.fields = {"address": "127.0.0.1:8000"}
    >>> JsonLines().format(record)
    '{"time": "...", "level": "info", "event": "listening", "address": "127.0.0.1:8000"}'
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log(level: int, event: str, *, traceback: bool = False, **fields: Any) -> None:
    """Writes one event.

    Args:
      level: of `logging`.
      event: short and fixed, such as ``"split loaded"``; what varies goes into the fields.
      traceback: add that of the exception that is being handled.
      **fields: JSON values, or what has a text.
    """
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, event, exc_info=traceback, extra={"fields": fields})


def write_logs(stream: TextIO, level: str) -> None:
    """Sends the server's events to a stream, as lines of JSON and nowhere else.

    Args:
      stream: usually ``sys.stderr``.
      level: least level that is written: ``"debug"`` (every request), ``"info"``, ...
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    LOGGER.handlers[:] = [handler]
    LOGGER.propagate = False
    LOGGER.setLevel(level.upper())
