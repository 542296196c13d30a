"""The training part of an attempt: Keras's own `fit()`, continued, with everything published that it needs.

Each epoch is one call of `fit` with the run's one CallbackList. That is public Keras all the way, and gives an epoch
that begins at any batch. Two things need care: `fit` ends by overwriting the weights with their averages when the
optimizer keeps some (held back until the run's end), and it resets metrics (put back as the epoch begins).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from resume import lineage, logs, plain, preempt, rundir
from resume.continuity import Proof
from resume.engine import callbacks as run_callbacks
from resume.engine import capture, feed, fitting, flavour, live, memory, restore, rng
from resume.engine.callbacks import Hooks, RunCallbacks
from resume.engine.data import Order
from resume.engine.export import export
from resume.engine.job import Job, Origin, Outcome
from resume.engine.opening import Opening
from resume.engine.remote import Tier
from resume.engine.saving import Saver
from resume.engine.snapshot import Snapshots
from resume.engine.validation import Validation
from resume.errors import RunInUseError, UsageError
from resume.lock import Claim
from resume.preempt import Preempted
from resume.rundir import Directory
from resume.schedule import Clockwork
from resume.state import TrainState


class Attempt:
    """The live attempt: position in the data, and what happens at each of the run's moments."""

    def __init__(
        self,
        job: Job,
        origin: Origin,
        model: keras.Model,
        order: Order,
        declared: Mapping[str, Any],
        proof: Proof | None,
        notes: list[str],
        rate: float | None,
    ) -> None:
        self.job, self.origin, self.model, self.order = job, origin, model, order
        self.proof, self.notes, self.rate = proof, notes, rate
        self.watch = job.watch
        self.validation = Validation(
            job.validation, job.feeding.seed, job.strategy, job.validation_args.get("validation_steps")
        )
        position = self._section("position", {})
        self.epoch, self.batch = (
            origin.epoch,
            _rescaled(origin.batch, position.get("steps"), order.steps(origin.epoch)),
        )
        self.stopped = bool(position.get("stopped"))
        self.validated = int(position.get("validated", 0))
        self.batch_logs: Mapping[str, Any] = position.get("batch_logs") or {}
        self.epoch_logs: Mapping[str, Any] | None = self._section("epoch_logs", None)
        self.step = (origin.state.iterations or 0) if origin.state else 0
        self.clockwork = Clockwork(job.schedule, self.step)
        self.due = False
        self.said: set[str] = set()
        self.before_validation: TrainState | None = None
        self.snapshots = Snapshots(model, constant={"declared": plain.bare(declared)})

    def _section(self, name: str, default: Any) -> Any:
        return capture.section(self.origin.state, name, default) if self.origin.state else default

    def run(self, claim: Claim, tier: Tier, *, restore_seconds: float) -> Outcome:
        self.directory = Directory(self.job.run_dir, self.job.retention, claim.publishing)
        self.tier, self.restore_seconds = tier, restore_seconds
        with claim.publishing():  # who stood still until now must not sweep and rewind what is another's
            self._begin()
        tier.begun()
        claim.reached = lambda: {"attempt": self.number, "step": self.step}
        self.watch.at_exit = self._ended
        try:
            self.callbacks.on_train_begin()
            with fitting.averages_held_back(self.model.optimizer), fitting.built_already(self.model):
                while self.epoch < self.job.epochs and not (self.stopped and not self.batch):
                    self._one_epoch()
            self._finish()
        except RunInUseError:
            raise  # the lineage is another's by now
        except BaseException as error:
            self._left(claim, error)
            raise
        finally:
            memory.leave(self.named)
        with claim.publishing():
            lineage.append(self.job.run_dir, "end", attempt=self.number, reason="completed", step=self.step,
                           epoch=self.epoch, stopped=self.stopped)  # fmt: skip
        self.own_log.timeline(self.job.run_dir, step=self.step)  # with this end in it
        self.own_log.close()
        return Outcome(self.callbacks._history, self.model, self.proof, self.step)

    def _left(self, claim: Claim, error: BaseException) -> None:
        """The run's last words in this attempt, unless it is another's by now."""
        try:
            self.saver.abandon()
            with claim.publishing():
                self._ended(_reason(error))
        except RunInUseError as taken:
            self.job.say(str(taken))
        except OSError as lost:  # the error itself is what has to be told
            self.job.say(f"{self.job.run_dir}: why it ended could not be noted ({lost.strerror or lost})")

    def _ended(self, reason: str) -> None:
        lineage.append(self.job.run_dir, "end", attempt=self.number, reason=reason, step=self.step)

    # -- beginning -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        run = self.job.run_dir
        rundir.sweep(run)
        lineage.reconcile(run)
        before = lineage.attempts(lineage.read(run))
        self.number = len(before) + 1
        self.born = flavour.of(self.model)
        self.named = run_callbacks.checked(self.job.callbacks(self.born), self.born)
        made = memory.as_made(self.named)
        opening = Opening(self.job, self.origin, self.model, self.proof, self.number, self.step)
        files = opening.rewind(before, self.named.values())
        opening.record(files, batch=self.batch, epoch=self.epoch, restore_seconds=self.restore_seconds)
        self.own_log = opening.announce(self.notes)
        nbytes = live.nbytes(self.model)
        self.saver = Saver(
            self.job,
            self.directory,
            self.tier,
            attempt=self.number,
            newest=self.step if self.origin.kind == "run" else 0,
            own_log=self.own_log,
            beside=opening.beside(nbytes),
            nbytes=nbytes,
        )
        self.callbacks = RunCallbacks.of(
            self.named.values(),
            model=self.model,
            hooks=Hooks(
                self._began,
                self._fit_begun,
                self._epoch_begun,
                self._step_done,
                self._epoch_done,
                self._validation_step_done,
            ),
            epochs=self.job.epochs,
            steps=self.order.steps(self.epoch),
            verbose=self.job.verbose,
        )
        self.named["history"] = self.callbacks._history
        self.untouched = memory.Untouched({**made, **memory.snapshot({"history": self.named["history"]})})

    def _began(self) -> None:
        """After every callback's on_train_begin, which may reset what was restored."""
        self.untouched = memory.Untouched(self.untouched.made, memory.snapshot(self.named))
        self._say_unheld()
        if self.origin.state is None:
            return
        restore.reassert(self.model, self.origin.state, accept=self.job.accept)
        saved = self._section("callbacks", None)
        if saved is not None:
            memory.restore(self.named, saved)
            run_callbacks.realign_boards(self.named.values())
            for line in memory.differences(self.named, saved):
                self.job.say(f"  {line}")
        generators = self._section("rng", None)
        if generators:
            rng.restore(generators)
        if self.rate is not None:
            self.model.optimizer.learning_rate = self.rate
        self.model.stop_training = self.stopped

    def _fit_begun(self) -> None:
        """tf_keras counts the batches of one `fit`, which is one epoch here; TensorBoard takes them for the run's."""
        if self.born == flavour.TF_KERAS:
            self.model._train_counter.assign(self.step)

    # -- epochs --------------------------------------------------------------------------------------------------

    def _one_epoch(self) -> None:
        steps = self.order.steps(self.epoch)
        self.callbacks.steps, self.callbacks.skipped = steps, self.batch
        self.callbacks.mid_epoch = self.batch > 0
        self.callbacks.set_params({**self.callbacks.params, "steps": steps})
        if self.batch >= steps or self.stopped:
            self._end_epoch_only()
        else:
            self._fit(steps)

    def _fit(self, steps: int) -> None:
        part = self.order.begin(self.epoch, self.batch)
        before = self.epoch
        validation = feed.validation_arguments(self._validation_data(), self.born)
        self._say_notes()
        with feed.handed(part.adapter, self.born) as data:
            self.model.fit(
                **data,
                initial_epoch=before,
                epochs=before + 1,
                callbacks=self.callbacks,
                verbose=self.job.verbose,
                **{**self.job.validation_args, **validation},
            )

    def _say_notes(self) -> None:
        for notes in (self.order.notes, self.validation.notes):
            while notes:
                self.job.say(notes.pop(0))

    def _validates(self) -> bool:
        freq = self.job.validation_args.get("validation_freq", 1)
        due = (self.epoch + 1) % freq == 0 if isinstance(freq, int) else self.epoch + 1 in freq
        return self.job.validation is not None and due

    def _validation_data(self) -> Any:
        return self.validation.data(self.epoch, done=self.validated) if self._validates() else None

    def _end_epoch_only(self) -> None:
        """The epoch's batches are all applied: only its validation and its end are left, as `fit` would do them."""
        self.callbacks.on_epoch_begin(self.epoch)
        results = run_callbacks.numbers(self.model.get_metrics_result())
        epoch_logs = results if results.keys() == self.batch_logs.keys() else dict(self.batch_logs)
        data, args = self._validation_data(), self.job.validation_args
        self._say_notes()
        if data is not None:
            given = feed.validation_arguments(data, self.born)
            x, y, weight = keras.utils.unpack_x_y_sample_weight(given["validation_data"])
            results = self.model.evaluate(
                x=x,
                y=y,
                sample_weight=weight,
                batch_size=args.get("validation_batch_size") or args.get("batch_size"),
                steps=given.get("validation_steps", args.get("validation_steps")),
                callbacks=self.callbacks,
                return_dict=True,
                verbose=self.job.verbose,
            )
            epoch_logs |= {f"val_{k}": v for k, v in results.items()}
        self.callbacks.on_epoch_end(self.epoch, epoch_logs)

    def _epoch_begun(self) -> None:
        if self.origin.state is not None and self.callbacks.mid_epoch:
            restore.epoch_in_progress(self.model, self.origin.state)

    def _step_done(self, applied: int, logs: Mapping[str, Any] | None) -> None:
        self.step += applied - self.batch
        self.batch = applied
        self.due = self.clockwork.after_step(self.step) or self.due
        self.watch.phase = preempt.TRAINING
        self.saver.collect()
        last = applied >= self.callbacks.steps or bool(self.model.stop_training)  # validated after either
        validates = last and self._validates()
        leaving = self.watch.notice is not None
        if validates or leaving or self.due:
            self.batch_logs = run_callbacks.numbers(logs)
        if leaving:  # a notice that comes from here on finds nothing saved yet: it is the next step's
            self._publish_in_time()
            self._leave_if_told()
        elif self.due and not (last and not validates):
            self._publish(must=False)
        if validates:
            # Callbacks may change anything in a validation (SwapEMAWeights swaps the weights), and it uses the metrics.
            self.before_validation = self._state()

    def _validation_step_done(self) -> None:
        """A preempted validation begins again: the state that it was begun with is what is published."""
        if self.watch.notice is not None:
            # Without it this attempt began at this validation, and that is published.
            if self.before_validation is not None:
                self._publish_in_time()
            self._leave_if_told()

    def _publish_in_time(self) -> None:
        self.saver.collect(wait=True)
        if self.watch.time_to_save():
            self._publish()

    def _leave_if_told(self) -> None:
        if self.watch.notice is not None:
            self.watch.phase = preempt.LEAVING
            self.saver.collect(wait=True)
            raise Preempted(str(self.watch.told()))

    def _epoch_done(self, epochs: int, logs: Mapping[str, Any]) -> None:
        self.stopped = bool(self.model.stop_training)
        if self.batch < self.callbacks.steps and not self.stopped:
            raise UsageError(
                f"data.train ended after {self.batch} of {self.callbacks.steps} batches of epoch {epochs}; what this "
                "epoch did since the last checkpoint is not kept. Give fit.steps_per_epoch its true value."
            )
        self.validated += self._validates()
        self.before_validation = None
        self.epoch, self.batch, self.batch_logs, self.epoch_logs = epochs, 0, {}, logs
        last = epochs >= self.job.epochs or self.stopped
        if self.clockwork.after_epoch(epochs, last=last) or self.due:
            self.due = True
            self._publish(must=last or self.job.retention.best is not None)

    # -- publishing ----------------------------------------------------------------------------------------------

    def _publish(self, *, must: bool = True) -> None:
        self.callbacks.settle()
        if self.saver.save(self._state, must=must):
            self.due = False
            self.clockwork.published()

    def _state(self) -> TrainState:
        if self.before_validation is not None:
            return self.before_validation
        progress = self._progress()
        later = {"rng": rng.noted()}  # after callbacks have told their state: that may draw
        return self.snapshots.take(epoch=self.epoch, batch=self.batch, progress=progress, later=later)

    def _progress(self) -> dict[str, Any]:
        files = run_callbacks.appended_files(self.named.values())
        with self.own_log.lock:  # another thread writes what a checkpoint has cost
            files += self.own_log.files()
            lengths = logs.sizes(self.job.run_dir, files)
        states = memory.states(self.named, self.untouched)
        self._say_once(memory.late(self.named, states, self.untouched))
        return {
            "position": {
                "epoch": self.epoch,
                "batch": self.batch,
                "steps": self.callbacks.steps,
                "stopped": bool(self.model.stop_training),
                "validated": self.validated,
                "batch_logs": run_callbacks.stored(self.batch_logs),
            },
            "epoch_logs": run_callbacks.stored(self.epoch_logs) if self.epoch_logs is not None else None,
            "callbacks": states,
            "files": lengths,
        }

    def _finish(self) -> None:
        self.saver.finish()
        if hasattr(self.model.optimizer, "finalize_variable_values"):
            self.model.optimizer.finalize_variable_values(self.model.trainable_weights)
        self.callbacks.finish(self.epoch_logs)
        self._say_unheld()
        export(self.model, self.directory, say=self.job.say)

    def _say_unheld(self) -> None:
        self._say_once(f"not kept in checkpoints: {line}" for line in memory.unheld(self.named))

    def _say_once(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line not in self.said:
                self.job.say(line)
                self.said.add(line)


def _rescaled(batch: int, saved_steps: int | None, steps: int) -> int:
    """The same share of the epoch where it has another number of batches now."""
    return batch if saved_steps in (None, steps) else batch * steps // max(saved_steps or 1, 1)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Preempted):
        return str(error)
    return f"failed: {type(error).__name__}: {error}".splitlines()[0]
