"""Notices that clouds give on a metadata address and not by a signal: one question each, answered or not.

gce     computeMetadata/v1/instance/preempted is TRUE, about 30 s before (cloud.google.com/compute, spot VMs)
aws     latest/meta-data/spot/instance-action names a time, about 2 minutes before (EC2 user guide, spot interruptions)
azure   metadata/scheduledevents has a Preempt event, at least 30 s before (Azure, scheduled events for Linux)
"""

from __future__ import annotations

import calendar
import json
import time
import urllib.request
from collections.abc import Callable, Mapping

from resume.clusters import Cause

_LINK_LOCAL = "http://169.254.169.254"
ADDRESSES = {"gce": "http://metadata.google.internal", "aws": _LINK_LOCAL, "azure": _LINK_LOCAL}
_GRACE = 30.0
_PATIENCE = 2.0  # seconds for an answer


def asked(cloud: str, *, address: str | None = None) -> Cause | None:
    """Whether this cloud is about to take the machine away; None also where nobody answers."""
    try:
        return _CLOUDS[cloud]((address or ADDRESSES[cloud]).rstrip("/"))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a metadata server that does not answer, or not what it should, says nothing


def _gce(address: str) -> Cause | None:
    said = _get(f"{address}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return Cause("preempted", _GRACE) if said.strip() == "TRUE" else None


def _aws(address: str) -> Cause | None:
    token = _get(
        f"{address}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}, method="PUT"
    )
    said = _get(f"{address}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    return Cause("preempted", _until(json.loads(said)["time"], "%Y-%m-%dT%H:%M:%SZ"))


def _azure(address: str) -> Cause | None:
    said = _get(f"{address}/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"})
    for event in json.loads(said)["Events"]:
        if event["EventType"] == "Preempt":
            at = event.get("NotBefore")
            return Cause("preempted", _until(at, "%a, %d %b %Y %H:%M:%S GMT") if at else _GRACE)
    return None


_CLOUDS: Mapping[str, Callable[[str], Cause | None]] = {"gce": _gce, "aws": _aws, "azure": _azure}


def _until(text: str, layout: str) -> float:
    return max(calendar.timegm(time.strptime(text, layout)) - time.time(), 0.0)


def _get(url: str, headers: Mapping[str, str], *, method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
        return str(answer.read(1 << 20), "utf-8")
