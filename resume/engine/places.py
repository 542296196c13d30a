"""Where each variable of a live model lies in a format that keeps positions, in the words of `TrainState.places`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensorflow.python.checkpoint.graph_view import ObjectGraphView

from resume.engine import archive, flavour, keras2
from resume.errors import ContinuityError
from resume.formats import h5
from resume.state import TrainState


def of(model: Any, state: TrainState) -> dict[str, Any]:
    """Position -> variable; only positions that the state names and the model has."""
    wanted = set(state.places.values())
    if state.format in ("savedmodel", "tf_checkpoint") or (
        state.format == "backup" and state.flavour == flavour.TF_KERAS
    ):
        return _by_edges(model, wanted)
    found = dict(archive.addresses(model))
    older = state.keras_version is not None and h5.is_old(state.keras_version)
    if state.format == "keras" and older and flavour.of(model) == flavour.KERAS:
        _demand_same_way(state, found)
    if flavour.of(model) == flavour.TF_KERAS:
        found = {**found, **keras2.by_index(model)} if state.format != "keras" else found
    return {place: found[place] for place in wanted if place in found}


def _demand_same_way(state: TrainState, found: Mapping[str, Any]) -> None:
    """Keras 2 counts the layers of a subclassed model where Keras 3 goes by their attributes; their order may differ.

    Raises ContinuityError that says how such a file moves to Keras 3.
    """
    lost = [p for name, p in state.places.items() if name.startswith("model/") and p not in found]
    if lost:
        raise ContinuityError(
            f"{state.path}: the layers of a subclassed model have no names in this kind of file of Keras 2, and Keras 3"
            f" looks for them elsewhere ({lost[0]} is nowhere in the model given).\n"
            "Move it in two steps: with the model in tf_keras to a checkpoint of ours, which has names, and that one:\n"
            f"  python -m resume convert {state.path} STEP --keras 2 --model MODULE:FUNCTION_IN_TF_KERAS\n"
            "  python -m resume convert STEP TARGET.keras --model MODULE:FUNCTION_IN_KERAS_3"
        )


def _by_edges(model: Any, wanted: Iterable[str]) -> dict[str, Any]:
    """Follow paths of edges, as TensorFlow does when it restores (tensorflow.python.checkpoint.graph_view)."""
    view, known, found = ObjectGraphView(model), {"": model}, {}

    def at(path: str) -> Any:
        if path not in known:
            parent, _, _ = path.rpartition("/")
            above = at(parent)
            children = view.list_children(above) if above is not None else ()
            prefix = f"{parent}/" if parent else ""
            known.update({f"{prefix}{child.name}": child.ref for child in children})
            known.setdefault(path, None)
        return known[path]

    for path in wanted:
        if at(path) is not None:
            found[path] = at(path)
    return found
