"""What an attempt does before its first step: cut back the logs, note its start in the lineage, tell people."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from resume import headroom, lineage, lock, logs
from resume.continuity import Proof
from resume.engine import callbacks as run_callbacks
from resume.engine import capture, flavour, restore
from resume.engine.callbacks import OwnLog
from resume.engine.job import Job, Origin
from resume.filesystem import size
from resume.formats import native

_SPARE = 1.05  # times the state, that must be free for it to be written beside the training


@dataclass(frozen=True)
class Opening:
    """`number`: of the attempt; `step`: the optimizer's raw count that it begins with."""

    job: Job
    origin: Origin
    model: keras.Model
    proof: Proof | None
    number: int
    step: int

    def rewind(self, before: list[lineage.Record], callbacks: Iterable[Any]) -> dict[str, int]:
        """Cut back every log to what the checkpoint knew of it; the sizes of all files that are appended to."""
        run, held = self.job.run_dir, list(callbacks)
        files = before[0].get("files", {}) if before else {}
        if self.origin.kind == "run":  # never another run's files
            assert self.origin.state is not None
            files = capture.section(self.origin.state, "files", files)
        writers = [(str(r["host"]), int(r["pid"])) for r in before]
        logs.rewind(run, files, folders=[*run_callbacks.log_folders(held), run / "logs"], writers=writers)
        if self.origin.kind == "run":
            run_callbacks.continue_files(held)
        return logs.sizes(run, run_callbacks.appended_files(held))

    def record(self, files: dict[str, int], *, epoch: int, batch: int, restore_seconds: float) -> None:
        """The lineage's line of this attempt's start."""
        run, proof, born = self.job.run_dir, self.proof, flavour.of(self.model)
        if self.job.record is not None:
            (run / "config.yaml").write_text(self.job.record)
        lineage.append(
            run,
            "start",
            attempt=self.number,
            kind=self.origin.kind,
            ckpt=self.job.ckpt,
            **{"from": {**self.origin.facts, "passed_over": list(self.origin.passed_over)}},
            step=self.step,
            epoch=epoch,
            batch=batch,
            epochs=self.job.epochs,
            verdict=proof.verdict if proof else "fresh",
            iterations_saved=proof.iterations_saved if proof else None,
            iterations_restored=proof.iterations_restored if proof else None,
            findings=[str(f) for f in proof.findings] if proof else [],
            host=socket.gethostname(),
            pid=os.getpid(),
            job=self.job.watch.cluster.job,
            restarts=self.job.watch.cluster.restarts,
            restore_seconds=round(restore_seconds, 3),
            lost=self._lost(),
            devices=self.job.devices,
            versions={"tensorflow": tf.__version__, born: flavour.library(born).__version__},
            files=files,
        )

    def _lost(self) -> dict[str, Any] | None:
        """What the attempt before had done beyond the checkpoint that this one begins at, as its heartbeat told."""
        beat, step = lock.last_heartbeat(self.job.run_dir), self.step
        if beat.get("attempt") != self.number - 1 or not isinstance(beat.get("step"), int):
            return None
        begun = self.origin.state and native.read_manifest(self.origin.state.path).get("time")
        seconds = max(float(beat["time"]) - float(begun), 0.0) if begun and beat["step"] > step else 0.0
        return {"step": beat["step"], "steps": max(beat["step"] - step, 0), "seconds": round(seconds, 1)}

    def announce(self, notes: Iterable[str]) -> OwnLog:
        """Tell where this attempt begins, on the screen and in TensorBoard. `notes`: drift that was decided."""
        say, job = self.job.say, self.job
        lines = [f"run {job.name}, attempt {self.number}: {_beginning(self.origin)}"]
        lines += [f"passed over: {why}" for why in self.origin.passed_over]
        lines += self.proof.lines() if self.proof else []
        if self.origin.state is not None and not restore.same_replicas(self.model, self.origin.state):
            lines.append(
                "  another number of devices: what each kept for itself (BatchNorm statistics) goes on from the first's"
            )
        lines += [f"  drift, {job.prefer} holds: {line}" for line in notes]
        for line in lines:
            say(line)
        own_log = OwnLog(job.run_dir / "logs" / "resume", job.say)
        own_log.attempt(lines, step=self.step)
        own_log.timeline(job.run_dir, step=self.step)
        self._repeat_cost(own_log)
        return own_log

    def _repeat_cost(self, own_log: OwnLog) -> None:
        """What the checkpoint cost was logged after it was published, and so cut off when the logs were rewound."""
        digest = self.origin.facts.get("digest")
        for r in lineage.read(self.job.run_dir):
            if r["event"] == "checkpoint" and r["digest"] == digest and "seconds" in r:
                blocked = r.get("blocked", r["seconds"])
                own_log.checkpoint(step=r["step"], seconds=r["seconds"], blocked=blocked, nbytes=r["bytes"])

    def beside(self, nbytes: int) -> bool:
        """Whether checkpoints are written beside the training, which takes as much memory again; says so, in bytes."""
        if self.job.background is False:
            return False
        room = headroom.available()
        if self.job.background is None and room is not None and room < nbytes * _SPARE:
            self.job.say(
                f"checkpoints of {size(nbytes)} are written while the training waits: beside it they take as much "
                f"memory more, and {size(room)} are free"
            )
            return False
        self.job.say(
            f"checkpoints of {size(nbytes)}, written beside the training, with up to as much memory more"
        )
        return True


def _beginning(origin: Origin) -> str:
    if origin.state is None:
        return "a fresh start"
    where = f"epoch {origin.epoch + 1}, batch {origin.batch}"
    return f"continues {origin.name} (step {origin.state.iterations}, {where})"
