"""Where each variable of a live model lies in a format that keeps positions, in the words of `TrainState.places`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensorflow.python.checkpoint.graph_view import ObjectGraphView

from resume.engine import archive, flavour, keras2
from resume.state import TrainState


def of(model: Any, state: TrainState) -> dict[str, Any]:
    """Position -> variable; only positions that the state names and the model has."""
    wanted = set(state.places.values())
    if state.format in ("savedmodel", "tf_checkpoint") or (
        state.format == "backup" and state.flavour == flavour.TF_KERAS
    ):
        return _by_edges(model, wanted)
    found = dict(archive.addresses(model))
    if flavour.of(model) == flavour.TF_KERAS:
        found = {**found, **keras2.by_index(model)} if state.format != "keras" else found
    return {place: found[place] for place in wanted if place in found}


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
