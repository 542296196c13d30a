"""Whose each variable of an optimizer is, in an object graph.

legacy (Keras 2 up to 2.10, tf.keras.optimizers.legacy): `iter` and hyperparameters are attributes; each slot
    variable is listed with its owner's node, so that no name decides
Keras 2.11 and later: `_iterations`, `_learning_rate`, `_variables/<n>`, which is called `Adam/m/dense/kernel`
Keras 3: the same, with `_trainable_variables/<n>`, and a list a role (`_momentums/<n>`) in the same order
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from resume import names
from resume.formats import keras2 as mapper
from resume.formats.graph import Path, Stored
from resume.state import OptimizerInfo

Named = list[tuple[str, int]]  # canonical name without `optimizer/`, node
Answer = tuple[Named, list[str]]

TRAINED = "_trainable_variables"
DERIVED = "_current_learning_rate"  # what a schedule gave for the last step; nothing reads it
_LISTS = frozenset({"_variables", TRAINED, "_trainable_variables_indices"})
_SCALARS = {
    "iter": "iteration", "_iterations": "iteration", "learning_rate": "learning_rate",
    "_learning_rate": "learning_rate", "momentum_cache": "u_product",
}  # fmt: skip
# The end of a slot's name in Keras 3; the longer ones first.
_ROLES = (
    "accumulated_delta_var", "gradient_accumulator", "average_gradient", "accumulated_grad", "velocity_hat",
    "accumulator", "velocity", "momentum", "average", "linear", "norm",
)  # fmt: skip
# A class that has slots of such names, where nothing tells the class: it decides what Keras 3 calls them, no more.
_BY_SLOTS = (
    ({"m", "u"}, "Adamax"), ({"r", "c"}, "Adafactor"), ({"m", "v"}, "Adam"), ({"rms"}, "RMSprop"), ({"m"}, "SGD"),
    ({"accum_grad"}, "Adadelta"), ({"v"}, "Adafactor"),
)  # fmt: skip
_NUMBERED = "which variable each slot belongs to could not be derived: the slots are numbered"
_OWNERLESS = "a slot belongs to a variable that is no part of the model: it is numbered"
_NAMESAKES = "more than one variable is called {}: their slots are taken in the order of the model's layers"


@dataclass(frozen=True)
class Owner:
    """A variable of the model, at its node. `member`: its layer, where the file does not tell the variables' order."""

    node: int
    variable: mapper.Owner
    member: str


def wrapped(stored: Stored, node: int) -> int | None:
    """The optimizer of TensorFlow 1 (`tf.train.AdamOptimizer`) inside Keras's TFOptimizer, which counts its steps."""
    children = stored.children(node)
    inner = children.get("optimizer") if "global_step" in children else None
    return inner if inner is not None and stored.graph.nodes[inner].slots else None


def is_legacy(stored: Stored, node: int) -> bool:
    if wrapped(stored, node) is not None:
        return True
    return bool(stored.graph.nodes[node].slots) or "iter" in stored.children(node)


# ---- Keras 2 ----


def keras2(stored: Stored, node: int, owners: Sequence[Owner], info: OptimizerInfo | None) -> Answer:
    """Canonical names of an optimizer's variables. Raises ValueError for a slot of another shape than its owner."""
    of_tensorflow_1 = wrapped(stored, node)
    if of_tensorflow_1 is not None:
        found, notes = keras2(stored, of_tensorflow_1, owners, info)
        powers = [(name.replace("hyper/", "unused/", 1), n) for name, n in found]  # beta_1**t, and so on
        return [("iteration", stored.children(node)["global_step"]), *powers], notes
    legacy = is_legacy(stored, node)
    held = _variables(stored, node, owners)
    inner = (info.inner if info else None) or _guessed(stored, node, held)
    out, notes = _linked(stored, node, owners, inner)
    slots = {slot.variable for slot in stored.graph.nodes[node].slots}
    rest, unused = [], []
    for n, path in held.items():
        name = _scalar(path, legacy=legacy)
        if n in slots or path == (DERIVED,):
            continue
        if name is not None:
            out.append((name, n))
        elif not legacy and path[0] != "_variables" and stored.shape(n) == ():
            unused.append(n)  # Adafactor's factors of what has no rows and columns
        else:
            rest.append(n)
    named, said = _by_name(stored, node, rest, owners, inner)
    out += [*named, *((f"unused/{index}", n) for index, n in enumerate(unused))]
    return out, [*notes, *said]


def _variables(stored: Stored, node: int, owners: Sequence[Owner]) -> dict[int, Path]:
    """Every variable below an optimizer that is none of the model's, with its path."""
    found = stored.graph.reach(node, stop={owner.node for owner in owners})
    return {n: path for n, path in found.items() if stored.is_variable(n)}


def _scalar(path: Path, *, legacy: bool) -> str | None:
    if len(path) == 1:
        return _SCALARS.get(path[0]) or f"{'hyper/' if legacy else ''}{path[0].strip('_')}"
    return f"loss_scale/{path[-1]}" if path[:-1] == ("loss_scale",) else None


def _guessed(stored: Stored, node: int, held: Mapping[int, Path]) -> OptimizerInfo | None:
    words = {slot.name for slot in stored.graph.nodes[node].slots}
    words |= {part for n in held for part in stored.name(n).split("/")[:2]}
    kind = next((kind for needed, kind in _BY_SLOTS if needed <= words), None)
    return OptimizerInfo(kind, {}) if kind else None


def _linked(stored: Stored, node: int, owners: Sequence[Owner], inner: OptimizerInfo | None) -> Answer:
    """Slots whose owner the file names."""
    known = {owner.node: owner.variable.name for owner in owners}
    kind = inner.class_name if inner else ""
    out: Named = []
    for index, slot in enumerate(stored.graph.nodes[node].slots):
        if stored.is_variable(slot.variable):
            owned = slot.owner in known
            name = f"{mapper.role(kind, slot.name)}/{known[slot.owner]}" if owned else f"vars/{index}"
            out.append((name, slot.variable))
    return out, [_OWNERLESS] if any(name.startswith("vars/") for name, _ in out) else []


def _by_name(
    stored: Stored, node: int, nodes: Sequence[int], owners: Sequence[Owner], inner: OptimizerInfo | None
) -> Answer:
    place = {n: index for index, n in stored.listed(node, "_variables").items()}
    ordered = sorted(nodes, key=lambda n: place.get(n, len(place)))
    slots = [mapper.Weight(stored.name(n), stored.shape(n)) for n in ordered]
    known, said = _distinct(slots, owners)
    labels, notes = mapper.optimizer_names(inner, slots, known)
    return [
        (name.removeprefix("optimizer/"), n) for name, n in zip(labels, ordered, strict=True)
    ], said + notes


def _distinct(
    slots: Sequence[mapper.Weight], owners: Sequence[Owner]
) -> tuple[list[mapper.Owner], list[str]]:
    """The owners, without namesakes whose slots cannot be told apart; a trained one goes before one that is not.

    Those of two layers come in the layers' order. Within a layer the graph has another order than the layer's variables
    (its own go first, dictionaries are sorted), so that namesakes there cannot be told apart.
    """
    trained = {owner.variable.raw for owner in owners if owner.variable.trainable}
    chosen = [o for o in owners if o.variable.trainable or o.variable.raw not in trained]
    held = [owner.variable for owner in chosen]
    counts = Counter(owner.raw for owner in held)
    members = Counter(raw for raw, _ in {(owner.variable.raw, owner.member) for owner in chosen})
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for slot in slots:
        for name in _tails(slot.name):
            if counts[name] > 1:
                found[name][slot.name] += 1
    unsure = {
        name
        for name, roles in found.items()
        if set(roles.values()) != {counts[name]} or members[name] != counts[name]
    }
    notes = [_NAMESAKES.format(name) for name in sorted(set(found) - unsure)]
    return [owner for owner in held if owner.raw not in unsure], notes


def _tails(name: str) -> Iterator[str]:
    parts = name.split("/")
    return ("/".join(parts[start:]) for start in range(1, len(parts)))


# ---- Keras 3 ----


def trained(stored: Stored, node: int) -> dict[int, int]:
    """Position -> node of the variables that an optimizer of Keras 3 was built with."""
    return stored.listed(node, TRAINED)


def keras3(stored: Stored, node: int, owners: Sequence[Owner]) -> Answer:
    """The same, of an optimizer of Keras 3."""
    children = stored.children(node)
    ordered = [n for _, n in sorted(stored.listed(node, "_variables").items()) if stored.is_variable(n)]
    if "inner_optimizer" in children:
        inner, notes = keras3(stored, children["inner_optimizer"], owners)
        return [*((f"loss_scale/{stored.leaf(n)}", n) for n in ordered), *inner], notes
    slots = _listed(stored, node, owners)
    attributes = {n: edge for edge, n in children.items()}
    if loose := [n for n in ordered if n not in slots and n not in attributes]:
        slots |= _loose(stored, node, loose, owners)
    out = [(slots.get(n) or _other(stored, n, i, attributes), n) for i, n in enumerate(ordered)]
    return out, [_NUMBERED] if any(name.startswith("vars/") for name, _ in out) else []


def _listed(stored: Stored, node: int, owners: Sequence[Owner]) -> dict[int, str]:
    """By the lists, one a role, whose members stand where their owners stand in the list of trained variables."""
    known = {owner.node: owner.variable.name for owner in owners}
    order = trained(stored, node)
    out: dict[int, str] = {}
    for edge in stored.children(node):
        members = stored.listed(node, edge)
        if edge not in _LISTS and set(members) <= set(order):
            for i, n in members.items():
                if stored.is_variable(n) and order[i] in known:
                    out[n] = f"{_role(stored, n, order[i], edge)}/{known[order[i]]}"
    return out


def _role(stored: Stored, slot: int, owner: int, edge: str) -> str:
    leaf, prefix = stored.leaf(slot), stored.name(owner).replace("/", "_") + "_"
    if leaf.startswith(prefix):
        return leaf[len(prefix) :]
    return _ending(leaf) or edge.strip("_")


def _ending(leaf: str) -> str | None:
    return next((role for role in _ROLES if leaf.endswith(f"_{role}")), None)


def _loose(stored: Stored, node: int, slots: Sequence[int], owners: Sequence[Owner]) -> dict[int, str]:
    """Of an optimizer whose lists TensorFlow cannot store: by its variables' order where all agree, else by names."""
    known = {owner.node: owner.variable for owner in owners}
    order = [known[n] for _, n in sorted(trained(stored, node).items()) if n in known]
    factors = {"_r", "_c", "_v"} <= set(stored.children(node))
    found = _factored(stored, slots, order) if factors else _walked(stored, slots, order)
    if found:
        return found
    variables = [owner.variable for owner in owners]
    told = names.slots([stored.name(n) for n in slots], [variable.raw for variable in variables])
    return {n: f"{s.role}/{variables[s.variable].name}" for n, s in zip(slots, told, strict=True) if s}


def _factored(stored: Stored, slots: Sequence[int], owners: Sequence[mapper.Owner]) -> dict[int, str]:
    """Adafactor: factors of rows and columns, which have no names of their own, and the velocity."""
    expected = []
    for owner in owners:
        rows, columns = owner.shape[:-1], (*owner.shape[:-2], *owner.shape[-1:])
        factors = (rows, columns) if len(owner.shape) > 1 else ((), ())
        roles = zip(("r", "c", "velocity"), (*factors, owner.shape), strict=True)
        expected += [(f"{role}/{owner.name}", shape) for role, shape in roles]
    if [stored.shape(n) for n in slots] != [shape for _, shape in expected]:
        return {}
    return {n: name for n, (name, _) in zip(slots, expected, strict=True)}


def _walked(stored: Stored, slots: Sequence[int], owners: Sequence[mapper.Owner]) -> dict[int, str]:
    """Muon: one variable after the other, each with one slot or two, whose names end as the variable's does."""
    out: dict[int, str] = {}
    at, seen = -1, set[str]()
    for n in slots:
        leaf = stored.leaf(n)
        role = _ending(leaf)
        if at < 0 or role in seen:
            at, seen = at + 1, set()
        if role is None or at >= len(owners) or stored.shape(n) != owners[at].shape:
            return {}
        if not leaf.endswith(f"_{owners[at].raw.rpartition('/')[2]}_{role}"):
            return {}
        seen.add(role)
        out[n] = f"{role}/{owners[at].name}"
    return out if at == len(owners) - 1 else {}


def _other(stored: Stored, node: int, index: int, attributes: Mapping[int, str]) -> str:
    """The variable's own name, or its attribute's where Keras gave it none; a number for what must be a slot."""
    if stored.shape(node) != ():
        return f"vars/{index}"
    leaf = stored.leaf(node)
    nameless = names.split_number(leaf)[0] == "variable"
    return attributes[node].strip("_") if nameless and node in attributes else leaf


def told(stored: Stored, node: int) -> dict[int, str]:
    """Node -> `dense_1/kernel`, by the slot `adam/net_dense_1_kernel_momentum` of a variable called `net/kernel`.

    Variables of Keras 3 leave their layer out where the model is a subclass; those with whole names are left out here.
    """
    out: dict[int, str] = {}
    order = trained(stored, node)
    for edge in stored.children(node):
        for i, n in stored.listed(node, edge).items() if edge not in _LISTS else ():
            scope, _, variable = stored.name(order[i]).rpartition("/") if i in order else ("", "", "")
            leaf, flat = stored.leaf(n), scope.replace("/", "_")
            end = f"_{variable}_{_ending(leaf)}"
            if variable and leaf.endswith(end) and not leaf.startswith(f"{flat}_{variable}_"):
                out.setdefault(order[i], f"{leaf[: -len(end)].removeprefix(f'{flat}_')}/{variable}")
    return out
