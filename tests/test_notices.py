"""What clouds say on their metadata address, by a real server on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from resume import clusters, notices, preempt


class Metadata(BaseHTTPRequestHandler):
    """Answers as the three clouds do; `taken` decides what."""

    taken = False

    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer("TOKEN" if asked else None)

    def do_GET(self) -> None:
        at = time.gmtime(time.time() + 90)
        if self.path.startswith("/computeMetadata/v1/instance/preempted"):
            self.answer(
                ("TRUE" if self.taken else "FALSE") if self.headers["Metadata-Flavor"] == "Google" else None
            )
        elif self.path == "/latest/meta-data/spot/instance-action":
            said = {"action": "terminate", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", at)}
            known = self.headers["X-aws-ec2-metadata-token"] == "TOKEN"
            self.answer(json.dumps(said) if self.taken and known else None)
        elif self.path.startswith("/metadata/scheduledevents"):
            event = {"EventType": "Preempt", "NotBefore": time.strftime("%a, %d %b %Y %H:%M:%S GMT", at)}
            events = {"Events": [{"EventType": "Freeze"}, *([event] if self.taken else [])]}
            self.answer(json.dumps(events) if self.headers["Metadata"] == "true" else None)
        else:
            self.answer(None)

    def answer(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Metadata.taken = False
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("cloud", "seconds"), [("gce", 30), ("aws", 90), ("azure", 90)])
def test_a_machine_that_is_to_be_taken_away(address: str, cloud: str, seconds: float) -> None:
    assert notices.asked(cloud, address=address) is None
    Metadata.taken = True
    found = notices.asked(cloud, address=address)
    assert found is not None
    assert (found.reason, found.again) == ("preempted", True)
    assert found.seconds == pytest.approx(seconds, abs=3)


@pytest.mark.parametrize("cloud", ["gce", "aws", "azure"])
def test_nobody_answers(cloud: str) -> None:
    assert notices.asked(cloud, address="http://127.0.0.1:9") is None


def test_a_watch_asks_and_leaves_before_the_first_step(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preempt, "_EVERY", 0.05)
    said: list[str] = []
    left = threading.Event()
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        left.set()

    cluster = clusters.Cluster("local", (), 75, notices=("aws",), notice_address=address)
    with preempt.Watch(cluster, say=said.append, leave=leave) as watch:
        time.sleep(0.3)
        assert watch.notice is None
        Metadata.taken = True
        assert left.wait(5)
    assert codes == [75]
    assert said == ["preempted (a notice of the cloud): nothing was trained yet"]
