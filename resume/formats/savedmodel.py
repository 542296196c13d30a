"""SavedModel directories of Keras 2: `saved_model.pb`, `keras_metadata.pb` and a checkpoint in `variables/`.

The checkpoint holds the whole training state, of which Keras itself restores next to nothing. What it lacks, Keras
wrote as JSON, one text an object: since TensorFlow 2.5 into keras_metadata.pb (tf_keras/protobuf/saved_metadata.proto),
before that into saved_model.pb's own object graph (SavedUserObject.metadata). The root's text has model_config and
training_config as an `.h5` file has them, except that tuples are marked as such.

`export()` of Keras 3 writes a SavedModel, too: variables for inference, no optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resume.errors import SourceError
from resume.formats import adapted, graph, h5, keras2, wire
from resume.formats.bundle import Bundle
from resume.formats.graph import Graph, Node
from resume.formats.hdf5 import damage, strict_json
from resume.formats.tfnames import Layer
from resume.formats.trackables import Model
from resume.state import ITERATION, TrainState

MODEL, METADATA, VARIABLES = "saved_model.pb", "keras_metadata.pb", Path("variables", "variables")
_METRIC = "_tf_keras_metric"
_ROOT = "root"
_MESSAGE_LIMIT = 1 << 31  # of a protocol buffer, by its own rules
_VOCABULARIES = ("vocabulary", "has_input_vocabulary")  # of lookup layers
NO_CONFIG = "the model is of a class of its own, {}, whose settings are not in this file: give the model"
NO_KERAS = "this SavedModel holds no Keras model: variables for inference only"


def holds(path: Path) -> bool:
    """Whether `path` is a directory with a SavedModel in it, or its saved_model.pb."""
    try:
        return (_directory(Path(path)) / MODEL).is_file()
    except OSError:
        return False


def read(path: Path) -> TrainState:
    """The training state in a SavedModel; arrays are read, and their checksums verified, when asked for.

    Raises SourceError for a directory in which anything is missing or damaged.
    """
    path = _directory(Path(path))
    objects = {name: item for name, item in _objects(path).items() if item.text}
    stored = graph.read(Bundle.of(path / VARIABLES))
    root = objects.get(_ROOT)
    facts = root.facts if root is not None else {}
    _check_copies(facts, root.source if root is not None else path)
    config, training = _model_config(facts), _mapping(facts.get("training_config"))
    version = facts.get("keras_version")
    version = version if isinstance(version, str) else None
    info = keras2.optimizer_info((training or {}).get("optimizer_config"), keras_version=version)
    layers = _layers(stored.graph, objects)
    state = Model(stored, config=config, layers=layers, info=info).state(kind="savedmodel", path=path)
    state = _discretized(state, stored.graph, layers)
    # Legacy optimizers have no variables before their first step.
    untrained = info is not None and info.legacy and ITERATION not in state.specs
    return replace(
        state,
        compile_config=training,
        optimizer=info or state.optimizer,
        keras_version=version,
        flavour="tf_keras" if root is not None else state.flavour,
        unheld=("optimizer",) if untrained else (),
        notes=tuple(_notes(state, facts, is_keras=root is not None, untrained=untrained)),
    )


def _directory(path: Path) -> Path:
    return path.parent if path.name == MODEL else path


def _notes(state: TrainState, facts: Mapping[str, Any], *, is_keras: bool, untrained: bool) -> Iterator[str]:
    if not is_keras:
        yield NO_KERAS
    elif state.model_config is None:
        yield NO_CONFIG.format(facts.get("class_name", "which it does not name"))
    for note in state.notes:
        yield h5.UNTRAINED if untrained and note == h5.NO_OPTIMIZER else note


# ---- what Keras wrote of its objects ----


@dataclass(frozen=True)
class _Object:
    """One Keras object: where it lies (`root.layer-0`), what it is, its settings as JSON."""

    kind: str
    text: bytes
    source: Path

    @property
    def facts(self) -> dict[str, Any]:
        found = strict_json(self.text, self.source, "the Keras metadata")
        return {key: _plain(value) for key, value in found.items()}


def _objects(path: Path) -> dict[str, _Object]:
    """By path from the root, as Keras writes it: `root.layer_with_weights-0`."""
    newer = path / METADATA
    with damage(path / MODEL, "its object graph"), (path / MODEL).open("rb"):
        pass  # a part that may not be read is no SavedModel, also where the newer file tells all there is to know
    with damage(newer, "the Keras metadata"):
        if newer.is_file():
            return dict(_metadata(newer))
    older = path / MODEL
    with damage(older, "its object graph"):
        return dict(_user_objects(older))


def _metadata(file: Path) -> Iterator[tuple[str, _Object]]:
    for field in wire.fields(_whole(file)):
        if field.tag == 1:
            texts = {part.tag: bytes(part.data) for part in field.message if part.kind == wire.BYTES}
            where, kind = (str(texts.get(tag, b""), "utf-8") for tag in (3, 4))
            yield where, _Object(kind, texts.get(5, b""), file)


def _user_objects(file: Path) -> Iterator[tuple[str, _Object]]:
    """Of each object in SavedModel > MetaGraphDef > SavedObjectGraph that has settings, by its path from the root."""
    with file.open("rb") as stream:
        whole = wire.Extent(stream, 0, file.stat().st_size)
        graphs = [inner for _, meta in whole.parts((2,)) for _, inner in meta.parts((7,))]
        nodes = [part.read() for _, part in graphs[0].parts((1,))] if graphs else []
    held = {n: _user_object(node, file) for n, node in enumerate(nodes)}
    if not any(held.values()):
        return
    # An object's edges are written as those of a checkpoint's objects are.
    edges = Graph.of_nodes(Node.of(f for f in wire.fields(node) if f.tag == 1) for node in nodes)
    for n, where in edges.reach(0).items():
        item = held.get(n)
        if item is not None:
            yield ".".join((_ROOT, *where)), item


def _user_object(node: memoryview, file: Path) -> _Object | None:
    for field in wire.fields(node):
        if field.tag == 4:
            texts = {part.tag: bytes(part.data) for part in field.message if part.kind == wire.BYTES}
            if texts.get(3):
                return _Object(str(texts.get(1, b""), "utf-8"), texts[3], file)
    return None


def _whole(file: Path) -> bytes:
    size = file.stat().st_size
    if size > _MESSAGE_LIMIT:
        raise ValueError(f"it has {size} bytes")
    return file.read_bytes()


# ---- what the texts say ----


def _model_config(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model in Keras's form; None for a class of its own that stored no settings."""
    held = facts.get("model_config")
    if not isinstance(held, Mapping):
        held = {key: facts[key] for key in ("class_name", "config") if key in facts}
    config = held.get("config")
    if not isinstance(held.get("class_name"), str) or not isinstance(config, Mapping | list):
        return None
    if not config or (isinstance(config, Mapping) and "layer was saved without config" in config):
        return None
    if "config" in facts:
        held = {**held, "config": _with_vocabularies(config, facts["config"])}
    shape = facts.get("build_input_shape")
    if facts.get("is_graph_network") is False and isinstance(
        shape, list
    ):  # as Keras 2.13 and later serialise it
        return {**held, "build_config": {"input_shape": shape}}
    return dict(held)


def _check_copies(facts: Mapping[str, Any], file: Path) -> None:
    """Keras writes the model's settings twice, once with numbers for what is shared; there is no checksum.

    In the one with the numbers it leaves the vocabularies out, and says whether there were any.
    """
    model = facts.get("model_config")
    again = model.get("config") if isinstance(model, Mapping) else None
    if "config" in facts and again is not None and _bare(facts["config"]) != _bare(again):
        raise SourceError(
            f"{file}: the two copies of the model's settings differ; the file is damaged.\n"
            "Resume from an earlier checkpoint."
        )


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        passed = ("shared_object_id", *(_VOCABULARIES if _VOCABULARIES[0] in value else ()))
        return {key: _bare(item) for key, item in value.items() if key not in passed}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _with_vocabularies(value: Any, full: Any) -> Any:
    """A copy of settings without the vocabularies, completed from the one that has them; both are alike otherwise."""
    if isinstance(value, dict) and isinstance(full, dict):
        held = {key: _with_vocabularies(item, full.get(key)) for key, item in value.items()}
        if _VOCABULARIES[0] in value:
            held |= {key: full.get(key) for key in _VOCABULARIES if key in full}
            held = {key: item for key, item in held.items() if key not in _VOCABULARIES or key in full}
        return held
    if isinstance(value, list) and isinstance(full, list):
        return [_with_vocabularies(a, b) for a, b in zip(value, full, strict=True)]
    return value


def _discretized(state: TrainState, found: Graph, layers: Mapping[int, Layer]) -> TrainState:
    """With the boundaries of Discretization layers in the settings."""
    summaries = {}
    for name, place in state.places.items():
        above, _, leaf = place.rpartition("/")
        layer = layers.get(found.at(tuple(above.split("/"))) or 0)
        if leaf == adapted.SUMMARY and layer is not None and layer.kind == "Discretization":
            summaries[layer.name] = name
    return adapted.without_summaries(state, summaries)


def _layers(found: Graph, objects: Mapping[str, _Object]) -> dict[int, Layer]:
    """Node -> name and class of every layer and metric below the model."""
    out = {}
    for where, item in objects.items():
        node = found.at(tuple(where.split(".")[1:]))
        if where == _ROOT or node is None:
            continue
        facts = item.facts
        out[node] = Layer(
            str(facts.get("name")), str(facts.get("class_name")), is_metric=item.kind == _METRIC
        )
    return out


def _mapping(value: object) -> dict[str, Any] | None:
    return dict(value) if isinstance(value, Mapping) else None


def _plain(value: Any) -> Any:
    """JSON as an `.h5` file has it: tuples and shapes as lists (tf_keras.src.saving.legacy.saved_model.json_utils)."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") in ("__tuple__", "TensorShape") and isinstance(value.get("items"), list):
        return [_plain(item) for item in value["items"]]
    return {key: _plain(item) for key, item in value.items()}
