"""Real S3-compatible servers on this machine: moto's, which forgets all when it ends, and one that keeps files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
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
