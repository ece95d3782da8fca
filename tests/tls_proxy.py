"""TLS before a server that has none: what connects here is decrypted and handed on."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from contextlib import suppress
from pathlib import Path

#: A certificate for 127.0.0.1 that signs itself, for a hundred years; its key is public, so it is good for nothing.
CERTIFICATE = Path(__file__).parent / "tls" / "certificate.pem"
_KEY = CERTIFICATE.with_name("key.pem")


class TLSProxy(socketserver.ThreadingTCPServer):
    """A context manager; ``port``: where to connect."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = ("127.0.0.1", port)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(CERTIFICATE, _KEY)
        self.port = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="tls")

    def __enter__(self) -> TLSProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        proxy = self.server
        assert isinstance(proxy, TLSProxy)
        with (
            suppress(OSError),
            proxy.context.wrap_socket(self.request, server_side=True) as client,
            socket.create_connection(proxy.target) as server,
        ):
            back = threading.Thread(target=_copy, args=(server, client), name="tls", daemon=True)
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
