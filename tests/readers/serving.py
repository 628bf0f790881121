"""An application on a port of its own, and Chromium at it."""

import contextlib
import socket
import threading

import uvicorn

from waiting import until


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(app, port, **options):
    """An ASGI application in a thread, as long as the block lasts."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=port, log_level="error", lifespan="on", timeout_keep_alive=1, timeout_graceful_shutdown=1, **options
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://localhost:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
