"""Real S3-compatible servers on this machine: moto's, which forgets all when it ends, and one that keeps files."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_PATIENCE = 60.0  # seconds for a server to start
_MOTO = "from moto.server import main; import sys; main(sys.argv[1:])"


@dataclass
class Server:
    """One address; whatever happens to the process behind it."""

    folder: Path | None = None  # kept there; None: moto
    port: int = field(default_factory=lambda: _free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self.folder is None:
            command = [sys.executable, "-c", _MOTO, "-H", "127.0.0.1", "-p", str(self.port)]
        else:
            command = [sys.executable, "-m", "localbucket", "--port", str(self.port), str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + _PATIENCE
        while not _answers(self.address):
            assert self.process.poll() is None, f"{command} ended"
            assert time.monotonic() < give_up, f"{command} does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def make(self, bucket: str) -> str:
        urllib.request.urlopen(urllib.request.Request(f"{self.address}/{bucket}", method="PUT")).close()
        return f"s3://{bucket}"

    def known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a user says which server it is: in the environment."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", self.address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "asks")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


class Cutting:
    """A way to a server that is cut in the middle of one PUT, and for good: as when the sender is killed there."""

    def __init__(self, server: Server, *, puts: int, body: int) -> None:
        """After `puts` of them, and `body` bytes of the next one's."""
        self._server, self._puts, self._body = server, puts, body
        self._turn, self._ways = threading.Lock(), list[socket.socket]()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.cut = False
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        with self._turn:
            for way in (self._listening, *self._ways):
                with contextlib.suppress(OSError):
                    way.shutdown(socket.SHUT_RDWR)
                way.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client = self._listening.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._server.port))
                with self._turn:
                    self._ways += [client, server]
                threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answers, args=(server, client), daemon=True).start()

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), client.makefile("rb") as stream:
            while first := stream.readline():
                head = [first]
                while head[-1] != b"\r\n":
                    head.append(stream.readline())
                ends = first.startswith(b"PUT ") and self._is_last()
                server.sendall(b"".join(head))
                length = next(
                    (int(h.split(b":")[1]) for h in head if h.lower().startswith(b"content-length")), 0
                )
                server.sendall(stream.read(min(self._body, length) if ends else length))
                if ends:
                    self.cut = True
                    self.close()
                    return

    def _is_last(self) -> bool:
        with self._turn:
            self._puts -= 1
            return self._puts < 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
