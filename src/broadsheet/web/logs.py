"""Logs: one line an event, as text for people or as JSON for machines."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Literal

Format = Literal["text", "json"]

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Lines(logging.Formatter):
    """What happened, and the values that were given with it (`extra`)."""

    def __init__(self, kind: Format) -> None:
        super().__init__()
        self.kind = kind

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values = {name: value for name, value in vars(record).items() if name not in STANDARD}
        trace = {"trace": self.formatException(record.exc_info)} if record.exc_info else {}
        if self.kind == "json":
            line = {
                "time": at,
                "level": record.levelname.lower(),
                "logger": record.name,
                "event": record.getMessage(),
                **values,
                **trace,
            }
            return json.dumps(line, default=str, ensure_ascii=False)
        said = " ".join(f"{name}={value}" for name, value in values.items() if value not in ("", None))
        said = CONTROL.sub(lambda found: repr(found[0])[1:-1], said)  # a value ends no line: what follows would look like ours
        said = " ".join([said, *(f"trace={text}" for text in trace.values())]).strip()
        return f"{at} {record.levelname.lower()} {record.name}: {record.getMessage()} {said}".rstrip()


def configure(kind: Format = "text", requests: bool = True) -> None:
    """Sends all logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(kind))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("broadsheet", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    logging.getLogger("broadsheet.access").setLevel(logging.INFO if requests else logging.WARNING)
