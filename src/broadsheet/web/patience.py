"""An end to requests that never come whole: uvicorn waits for a request's headers as long as somebody keeps the connection."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

LARGEST_HEAD = 64 * 2**10


class Patient(AutoHTTPProtocol):
    """uvicorn's protocol, with limits to the time and the size of what comes before a request's headers are complete.

    The time runs from the connection, or from the first byte after an answer, and no further byte prolongs it.
    """

    patience = 20.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(self.patience, self._give_up)
        self._size = 0

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:  # the headers are complete; the body is the application's to wait for
            self._rest()
        elif before is None or before.response_complete:
            self._size += len(data)
            if self._size > LARGEST_HEAD:
                self._end(b"431 Request Header Fields Too Large")
            elif self._timer is None:
                self._timer = self.loop.call_later(self.patience, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._size = None, 0

    def _give_up(self) -> None:
        self._timer = None
        self._end(b"408 Request Timeout" if self._size else b"")

    def _end(self, status: bytes) -> None:
        if self.transport.is_closing():
            return
        if status:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
