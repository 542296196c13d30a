"""One process of scripts/bench/sources: `trials.py TRIAL FIXTURES`, artifact ids on stdin, a line of JSON for each.

read        resume.read, every array against the truth; no TensorFlow
continued   resume.load in the flavour of birth, m more steps
refused     resume.load of a damaged file: what is said, or that it came back
round       converted to our own format, to .keras and to our own again: every array by name, bit for bit
moved       converted to .keras, resume.load of that, m more steps in Keras 3
by_hand     the true state copied into the run's own model in Keras 3, m more steps: what this machine can reach
keras       plain Keras 3, tf_keras: plain tf_keras, as a user would: load_model, or load_weights; m more steps
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(
    CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow",
    TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1",
)  # fmt: skip

import numpy as np
from cases import ROLES, Artifact, Case, artifacts, damaged

import resume
from resume.state import spec_of

_TRIED = 12  # arrays that a reason names at most


def main() -> None:
    trial, fixtures = sys.argv[1], Path(sys.argv[2])
    results = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # progress bars and whatever else a library prints
    known = {artifact.id: artifact for artifact in (*artifacts(fixtures), *damaged(fixtures))}
    sys.path.insert(0, str(fixtures))
    for line in sys.stdin:
        started = time.perf_counter()
        try:
            found = TRIALS[trial](known[line.strip()])
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            if os.environ.get("TRACE"):
                traceback.print_exc()
            found = {"error": reason(error)}
        found |= {"id": line.strip(), "seconds": round(time.perf_counter() - started, 3)}
        print(json.dumps(found), file=results, flush=True)


def reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:297] + '...'}"


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# -- read --------------------------------------------------------------------------------------------------------------


def read(artifact: Artifact) -> dict[str, Any]:
    """Whether the whole state is there by name, bit for bit, and nothing else is.

    Where the format names none (a custom layer's variables in a .keras file), an array may have a number for a name.
    """
    case, state = artifact.case, resume.read(artifact.path)
    expected = case.state(optimizer=artifact.full)
    lost = [n for n, a in expected.items() if n not in state.specs or not same(state.arrays[n], a)]
    numbers = [n for n in state.specs if "/vars/" in n]  # scalars among them may be slots of scalars
    extra = [n for n in dict.fromkeys((*state.weights, *state.slots, *numbers)) if n not in expected]
    for name in list(lost):
        alike = [e for e in extra if stands_for(e, name, artifact) and same(state.arrays[e], expected[name])]
        if alike:
            lost.remove(name)
            extra.remove(alike[0])
    extra = [n for n in extra if state.specs[n].shape != () or n not in numbers]  # a learning rate, say
    if artifact.full and state.iterations != case.iterations:
        lost.append(f"optimizer/iteration ({case.iterations} -> {state.iterations})")
    if not artifact.full and state.iterations not in (None, 0):
        extra.append("optimizer/iteration")
    return {
        "held": len(expected) - len(lost),
        "of": len(expected),
        "lost": lost[:_TRIED],
        "extra": extra[:_TRIED],
        "numbered": len(numbers),
        "notes": list(state.notes),
        "ok": not lost and not extra,
    }


def stands_for(name: str, true: str, artifact: Artifact) -> bool:
    """Whether a canonical name may be all that the format can tell of a variable.

    A position in the file, for the layers of a user; without an architecture, a name without what it is nested in.
    """
    if "/vars/" in name:
        return name.split("/")[0] == true.split("/")[0]
    (kind, own), (wanted, nested) = split(name), split(true)
    return not artifact.whole_model and kind == wanted and f"/{nested}".endswith(f"/{own}")


def split(name: str) -> tuple[str, str]:
    """`model` or `optimizer/<role>`, and the variable."""
    depth = 2 if name.startswith("optimizer/") else 1
    parts = name.split("/")
    return "/".join(parts[:depth]), "/".join(parts[depth:])


# -- live models -------------------------------------------------------------------------------------------------------


def library(flavour: str) -> Any:
    if flavour == "keras":
        import keras

        return keras
    import tf_keras

    return tf_keras


def forget() -> None:
    """Automatic names start again, as in a process of its own."""
    import keras

    keras.utils.clear_session()
    if "tf_keras" in sys.modules:
        sys.modules["tf_keras"].backend.clear_session()


def custom_objects(flavour: str) -> dict[str, Any]:
    import builders

    found: dict[str, Any] = builders.make_custom(library(flavour))
    return found


def fresh(artifact: Artifact, flavour: str) -> Any:
    """The run's own script up to fit(): the model, built and compiled."""
    import builders

    library_, case = library(flavour), artifact.case
    build, inputs, _, compiled = builders.BUILDERS[case.facts["model"]["builder"]]
    model = build(library_)
    if not model.built:
        model(data(case)[inputs[0]][0])
    model.compile(optimizer=optimizer(library_, case, flavour), **compiled(library_))
    return model


def optimizer(library_: Any, case: Case, flavour: str) -> Any:
    name, settings = case.facts["optimizer"]["requested"]
    settings, kinds = dict(settings), library_.optimizers
    decay = settings.pop("decay", None)
    rate = settings.get("learning_rate")
    if isinstance(rate, dict):
        schedule = dict(rate)
        kind = getattr(library_.optimizers.schedules, schedule.pop("sched"))
        settings["learning_rate"] = kind(**schedule)
    if flavour == "tf_keras" and case.facts["optimizer"]["api"] in ("legacy", "standalone"):
        kinds = library_.optimizers.legacy
        settings |= {"decay": decay} if decay else {}
    elif decay:
        settings["learning_rate"] = kinds.schedules.InverseTimeDecay(rate, 1, decay)
    return getattr(kinds, name.rpartition(".")[2])(**settings)


def data(case: Case) -> dict[str, np.ndarray]:
    with np.load(case.folder.parent / "data.npz") as file:
        return dict(file)


def batch(case: Case, step: int) -> tuple[Any, Any]:
    import builders

    _, inputs, targets, _ = builders.BUILDERS[case.facts["model"]["builder"]]
    held = data(case)
    x, y = ([held[name][step] for name in names] for names in (inputs, targets))
    return (x if len(x) > 1 else x[0]), (y if len(y) > 1 else y[0])


def variable(model: Any, facts: dict[str, Any]) -> Any:
    layer = model
    for name in facts["layer"].split("/"):
        layer = layer.get_layer(name)
    return layer.weights[facts["index"]]


def weights(model: Any, case: Case) -> dict[str, np.ndarray]:
    return {id_: np.asarray(found) for id_, found in variables(model, case).items()}


def variables(model: Any, case: Case) -> dict[str, Any]:
    """By id. Of a model that Keras numbered itself the layers are taken in their order."""
    listed = case.facts["weights"]
    held = {layer.name for layer in model.layers}
    if not {facts["layer"].split("/")[0] for facts in listed} <= held:
        ordered = [v for layer in model.layers for v in layer.weights]
        return {facts["id"]: v for facts, v in zip(listed, ordered, strict=True)}
    return {facts["id"]: variable(model, facts) for facts in listed}


def optimizer_arrays(model: Any) -> list[np.ndarray]:
    found, layers = [], [model.optimizer]
    layers += [inner] if (inner := getattr(model.optimizer, "inner_optimizer", None)) is not None else []
    for each in layers:
        held = each.variables() if callable(each.variables) else each.variables
        found += [np.asarray(v) for v in held]
    return found


def judged(artifact: Artifact, model: Any, train: Callable[[], None] | None = None) -> dict[str, Any]:
    """What of the true state is live, and how far from the truth the m next steps end."""
    case = artifact.case
    if model.optimizer is None:
        return {"error": "came back without an optimizer"}
    live = weights(model, case)
    slots = Counter(a.tobytes() for a in optimizer_arrays(model))
    expected = Counter(case.truth[f"k/{s['suffix']}"].tobytes() for s in case.facts["optimizer"]["slots"])
    before = {
        "weights": [sum(same(live[i], case.truth[f"k/{i}"]) for i in live), len(live)],
        "slots": [(expected & slots).total(), expected.total()],
        "iterations": [case.facts["optimizer"]["iterations"], int(np.asarray(model.optimizer.iterations))],
    }
    if train is None:
        for step in case.steps:
            model.train_on_batch(*batch(case, step))
    else:
        train()
    after = weights(model, case)
    largest = max(apart(after[i], case.truth[f"km/{i}"]) for i in after)
    intact = all(found == whole for whole, found in before.values())
    return {
        **before,
        "intact": intact,
        "largest": largest,
        "slots_apart": slots_apart(model, case),
    }


def apart(found: np.ndarray, truth: np.ndarray) -> float:
    if found.shape != truth.shape:
        return float("inf")
    gap = np.abs(found.astype(np.float64) - truth.astype(np.float64))
    return float(np.where(np.isnan(gap), np.inf, gap).max(initial=0.0))


def slots_apart(model: Any, case: Case) -> float | None:
    """The farthest that a true slot after m steps is from the nearest live array of its shape."""
    live = optimizer_arrays(model)
    gaps = []
    for slot in case.facts["after"].get("slots") or case.facts["optimizer"]["slots"]:
        truth = case.truth[f"km/{slot['suffix']}"]
        gaps.append(min((apart(a, truth) for a in live if a.shape == truth.shape), default=float("inf")))
    return max(gaps, default=None)


# -- continued, moved --------------------------------------------------------------------------------------------------


def needs_model(artifact: Artifact) -> bool:
    return not artifact.whole_model or artifact.case.facts["model"]["builder"] == "subclassed"


def continued(artifact: Artifact) -> dict[str, Any]:
    flavour = artifact.case.flavour
    forget()
    model = fresh(artifact, flavour) if needs_model(artifact) else None
    model, proof = resume.load(artifact.path, model=model, custom_objects=custom_objects(flavour))
    found = {"verdict": proof.verdict, "findings": [str(f) for f in proof.findings][:_TRIED]}
    return judged(artifact, model) | found | {"flavour": type(model.optimizer).__module__.split(".")[0]}


def refused(artifact: Artifact) -> dict[str, Any]:
    forget()
    try:
        _, proof = resume.load(artifact.path)
    except resume.ResumeError as error:
        return {"ok": True, "said": " ".join(str(error).replace(f"{artifact.path}", "PATH").split())}
    return {"ok": False, "said": f"came back, continuity {proof.verdict}"}


def moved(artifact: Artifact) -> dict[str, Any]:
    """`plain`: how far a plain load_model of the converted file ends, by its weights."""
    forget()
    objects, given = custom_objects("keras"), fresh(artifact, "keras") if needs_model(artifact) else None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "moved.keras")
        done = resume.convert(artifact.path, target, custom_objects=objects, model=given)
        found = {
            "said": [*done.differences],
            "made": dict(done.made),
            "dropped": len(done.dropped),
        }
        forget()
        model, _ = resume.load(target, custom_objects=objects)
        result = judged(artifact, model) | found
        forget()
        return result | {"plain": loaded_plainly(artifact, target, objects)}


def round_trip(artifact: Artifact) -> dict[str, Any]:
    """Without seeds, which a .keras file does not hold."""
    objects, digests = custom_objects("keras"), []
    with tempfile.TemporaryDirectory() as folder:
        path = artifact.path
        for name in ("first", "between.keras", "last"):
            forget()
            given = fresh(artifact, "keras") if needs_model(artifact) else None
            resume.convert(path, Path(folder, name), custom_objects=objects, model=given)
            path = Path(folder, name)
            state = resume.read(path)
            digests.append(
                {n: spec_of(state.arrays[n]) for n in state.specs if not n.startswith("seeds/")}
                if state.format == "native"
                else {}
            )
    first, _, last = digests
    lost = sorted(n for n in first.keys() | last.keys() if first.get(n) != last.get(n))
    return {"arrays": len(first), "lost": lost[:_TRIED], "ok": bool(first) and not lost}


def loaded_plainly(artifact: Artifact, target: Path, objects: dict[str, Any]) -> float | str:
    try:
        with library("keras").saving.custom_object_scope(objects):
            found = judged(artifact, library("keras").saving.load_model(target))
        return found.get("largest", found.get("error"))
    except Exception as error:
        return reason(error)


# -- by hand -----------------------------------------------------------------------------------------------------------


def by_hand(artifact: Artifact) -> dict[str, Any]:
    """Without a file and without us: what remains is rounding, and what Keras 3 computes in another way."""
    case, keras = artifact.case, library("keras")
    forget()
    keras.config.set_dtype_policy(case.facts["model"]["dtype_policy"])
    try:
        model = fresh(artifact, "keras")
        model.optimizer.build(model.trainable_variables)
        live = variables(model, case)
        for id_, variable_ in live.items():
            variable_.assign(case.truth[f"k/{id_}"])
        copy_optimizer(model.optimizer, case, {id_: v.path.replace("/", "_") for id_, v in live.items()})
        return judged(artifact, model)
    finally:
        keras.config.set_dtype_policy("float32")


def copy_optimizer(outer: Any, case: Case, flat: dict[str, str]) -> None:
    facts = case.facts["optimizer"]
    inner = getattr(outer, "inner_optimizer", outer)
    held = {v.path.rpartition("/")[2]: v for v in inner.variables}
    inner._iterations.assign(case.iterations)
    if not isinstance(facts["requested"][1].get("learning_rate"), dict) and facts["lr_kind"] == "constant":
        inner.learning_rate = facts["learning_rate_now"]
    for slot in facts["slots"]:
        held[f"{flat[slot['weight']]}_{ROLES[slot['slot']]}"].assign(case.truth[f"k/{slot['suffix']}"])
    if "u_product" in facts["scalars"]:
        inner._u_product.assign(facts["scalars"]["u_product"])
    if scale := facts["loss_scale"]:
        outer.dynamic_scale.assign(scale.get("dynamic_scale", scale.get("loss_scale")))
        outer.step_counter.assign(int(scale.get("step_counter", scale.get("dynamic_counter"))))


# -- peers -------------------------------------------------------------------------------------------------------------


def plain(flavour: str) -> Callable[[Artifact], dict[str, Any]]:
    """As the documentation of Keras says."""

    def trial(artifact: Artifact) -> dict[str, Any]:
        forget()
        found, objects = library(flavour), custom_objects(flavour)
        with found.saving.custom_object_scope(objects):
            if artifact.whole_model:
                return judged(artifact, found.models.load_model(artifact.path))
            model = fresh(artifact, flavour)
            if artifact.format == "backup":
                return backed_up(artifact, model, found)
            load_weights(artifact, model)
            return judged(artifact, model)

    return trial


def load_weights(artifact: Artifact, model: Any) -> None:
    import tensorflow as tf

    if hasattr(model.optimizer, "build"):
        model.optimizer.build(model.trainable_variables)  # or there is nothing to load into
    if artifact.format == "tf_checkpoint":
        tf.train.Checkpoint(model=model, optimizer=model.optimizer).restore(
            str(artifact.path)
        ).expect_partial()
    else:
        found = model.load_weights(str(artifact.path))
        if hasattr(found, "expect_partial"):
            found.expect_partial()


def backed_up(artifact: Artifact, model: Any, library_: Any) -> dict[str, Any]:
    """fit() with BackupAndRestore restores when it begins: that is all of the trial, but for the state before."""
    import tensorflow as tf

    steps = artifact.case.steps
    batches = tf.data.Dataset.from_tensor_slices(
        tuple(np.stack(part) for part in zip(*(batch(artifact.case, s) for s in steps), strict=True))
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(artifact.path, Path(folder, "backup"))
        back = library_.callbacks.BackupAndRestore(str(copy))
        found: dict[str, Any] = {}

        class Look(library_.callbacks.Callback):  # type: ignore[misc, name-defined]
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                found.setdefault("before", judged(artifact, self.model, train=lambda: None))

        model.fit(batches.repeat(), steps_per_epoch=1, epochs=steps.stop, verbose=0, callbacks=[back, Look()])
    before = found["before"]
    after = judged(artifact, model, train=lambda: None)
    return after | {key: before[key] for key in ("weights", "slots", "iterations", "intact")}


TRIALS: dict[str, Callable[[Artifact], dict[str, Any]]] = {
    "read": read,
    "continued": continued,
    "round": round_trip,
    "moved": moved,
    "by_hand": by_hand,
    "refused": refused,
    "keras": plain("keras"),
    "tf_keras": plain("tf_keras"),
}

if __name__ == "__main__":
    main()
