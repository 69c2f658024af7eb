"""Connections by which machines that share an engine notice each other's end; vLLM watches over one machine only.

The server listens, once its ranks have found it, at the port where they did. A broken connection means that the other
side is gone: then the engine is, for the KV on the other side is lost.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable

_GREETING = b"askahead-engine\n"
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 10.0
# A machine that loses its power says nothing: it is missed after 10 + 3 * 5 s.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Lifelines:
    """The server's side.

    Args:
        address, port: where to listen.
        lost: called once, in a thread, when a connection breaks.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, address: str, port: int, lost: Callable[[], None]) -> None:
        self._lost = lost
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family)
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name="lifelines", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Break all connections. Idempotent."""
        self._waker.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener, self._woken:
            lines: list[socket.socket] = []
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            try:
                while True:
                    ready = {key.fileobj for key, _ in selector.select()}
                    if self._woken in ready:
                        return
                    if any(line in ready and _over(line) for line in lines):
                        break
                    if self._listener in ready:
                        line, _ = self._listener.accept()
                        _keep_alive(line)
                        line.sendall(_GREETING)
                        selector.register(line, selectors.EVENT_READ)
                        lines.append(line)
            finally:
                for line in lines:
                    line.close()
        self._lost()


def outlive(address: str, port: int, ended: threading.Event) -> None:
    """Blocks until the server, once it has been there, is gone, or until ``ended`` is set before it was."""
    while not ended.is_set():
        try:
            with socket.create_connection((address, port), timeout=_CONNECT_SECONDS) as line:
                _keep_alive(line)
                # Until its ranks are there, vLLM itself listens there.
                if line.recv(len(_GREETING), socket.MSG_WAITALL) == _GREETING:
                    line.settimeout(None)
                    while not _over(line):
                        pass
                    return
        except OSError:
            pass
        ended.wait(_RETRY_SECONDS)


def _over(line: socket.socket) -> bool:
    try:
        return not line.recv(64)
    except OSError:
        return True


def _keep_alive(line: socket.socket) -> None:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
