"""A connection to the app that a test can cut."""

import socket
from contextlib import suppress
from threading import Event, Thread


class CuttableProxy:
    """A TCP proxy to an address of this machine, whose connections can be cut and restored."""

    def __init__(self, target: str):
        self.target_port = int(target.rpartition(":")[2])
        self.sockets: list[socket.socket] = []
        self.connected = Event()
        self.connected.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close all connections, and refuse new ones."""
        self.connected.clear()
        for end in self.sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.sockets.clear()

    def restore(self) -> None:
        """Accept connections again."""
        self.connected.set()

    def _accept(self) -> None:
        while True:
            client = self.listener.accept()[0]
            if not self.connected.is_set():
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.target_port))
            self.sockets += client, server
            for source, sink in ((client, server), (server, client)):
                Thread(target=_forward, args=(source, sink), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
