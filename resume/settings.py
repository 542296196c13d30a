"""The keys of a training configuration that are ours: their names, types and defaults, and the way to conf/.

What belongs to the user or to Keras (arguments of a model, of an optimizer, of a callback) stays a plain dictionary.
Everything else must be a key of the dataclasses below, so that a typo is an error before anything is built.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resume import urls
from resume.errors import UsageError

Node = dict[str, Any]  # a dictionary with a _target_


@dataclass(frozen=True)
class DataSettings:
    train: Node | None = None
    validation: Node | None = None


@dataclass(frozen=True)
class FitSettings:
    """The arguments of Model.fit that are the user's."""

    epochs: int = 10  # in all, not in one attempt
    steps_per_epoch: int | None = None
    verbose: Any = "auto"  # "auto", 0, 1 or 2
    batch_size: int | None = None  # of arrays; a dataset has its own
    validation_steps: int | None = None
    validation_freq: Any = 1  # every so many epochs, or a list of epochs, counted from 1
    validation_batch_size: int | None = None
    class_weight: dict[int, float] | None = None
    shuffle: bool = True


@dataclass(frozen=True)
class CheckpointSettings:
    every_steps: int | None = None
    every_minutes: float | None = 10.0
    every_epochs: int | None = 1
    at_end: bool = True
    keep_last: int = 2
    keep_every_steps: int | None = None
    keep_best: str | None = None  # a metric
    when_busy: str = "wait"  # "skip": what is due while a checkpoint is written comes after that one
    on_failure: str = "stop"  # "warn": train on although a checkpoint could not be published
    background: bool | None = None  # write beside the training; None: where there is memory for it
    accept: list[str] = field(default_factory=list)  # names that may start fresh
    prefer: str | None = None  # "config" or "checkpoint", where they disagree
    local: str | None = None  # a folder of this machine for runs whose run_dir is a URL


@dataclass(frozen=True)
class DeviceSettings:
    kind: str = "auto"
    logical_cpus: int | None = None
    memory_growth: bool = True


@dataclass(frozen=True)
class ClusterSettings:
    kind: str = "auto"
    signals: list[str] | None = None  # that mean: save and leave
    grace: float | None = None  # seconds from such a signal to the kill, where the cluster does not tell
    requeue: bool | None = None  # ask for another start after the save
    exit_code: int | None = None  # of a preempted attempt
    notices: list[str] = field(default_factory=list)  # clouds to ask: gce, aws, azure
    notice_address: str | None = None  # of their metadata server
    wait: float = 0.0  # seconds to wait for another process that trains in the run directory
    stale: float = 60.0  # seconds without a heartbeat after which such a process counts as gone
    fruitless: int | None = 3  # attempts in a row that may end without a new checkpoint


@dataclass(frozen=True)
class Settings:
    """A whole training configuration; every value is a plain Python one, and nothing in it is still to resolve."""

    name: str = "digits"
    run_dir: str = "runs/${name}"
    ckpt: str | None = None
    flavour: str = "auto"  # the Keras to continue in: of the source's birth; "keras" (3) or "tf_keras" (2)
    seed: int = 0
    deterministic: bool = False
    dtype_policy: str | None = None
    model: Node | None = None
    compile: dict[str, Any] = field(default_factory=dict)  # Model.compile's; absent: as the source has it
    custom_objects: dict[str, str | None] = field(default_factory=dict)  # name -> import path
    trust: str = "config"  # of what a source names: "none", "config" (what custom_objects names), "code"
    trusted_modules: list[str] = field(
        default_factory=list
    )  # under trust=code: prefixes of modules to import
    data: DataSettings = field(default_factory=DataSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    callbacks: dict[str, Node | None] = field(default_factory=dict)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    devices: DeviceSettings = field(default_factory=DeviceSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)


_SECTIONS = {f.name: f.type for f in fields(Settings) if is_dataclass(f.type)}
_KEYS = {"": [f.name for f in fields(Settings)]} | {
    name: [f.name for f in fields(section)] for name, section in _SECTIONS.items()
}
_AT_LEAST = {
    "seed": 0,
    "fit.epochs": 1,
    "fit.steps_per_epoch": 1,
    "fit.batch_size": 1,
    "fit.validation_steps": 1,
    "fit.validation_batch_size": 1,
    "checkpoint.every_steps": 1,
    "checkpoint.every_minutes": 0,
    "checkpoint.every_epochs": 1,
    "checkpoint.keep_last": 1,
    "checkpoint.keep_every_steps": 1,
    "devices.logical_cpus": 1,
    "cluster.exit_code": 1,
    "cluster.grace": 0,
    "cluster.wait": 0,
    "cluster.stale": 15,  # three heartbeats
    "cluster.fruitless": 1,
}
_ONE_OF: dict[str, tuple[Any, ...]] = {
    "flavour": ("auto", "keras", "tf_keras"),
    "trust": ("none", "config", "code"),
    "fit.verbose": ("auto", 0, 1, 2),
    "checkpoint.prefer": (None, "config", "checkpoint"),
    "checkpoint.when_busy": ("wait", "skip"),
    "checkpoint.on_failure": ("stop", "warn"),
    "devices.kind": ("auto", "cpu"),
    "cluster.kind": ("auto", "local", "slurm", "kubernetes"),
}
_ELSEWHERE = {  # arguments of Keras that have another place here
    "fit.x": "data.train",
    "fit.y": "data.train",
    "fit.sample_weight": "data.train, as the third part of each element",
    "fit.validation_data": "data.validation",
    "fit.validation_split": "data.validation",
    "fit.callbacks": "callbacks",
    "fit.initial_epoch": "nothing: the epoch comes from the checkpoint",
    "loss": "compile.loss",
    "metrics": "compile.metrics",
    "optimizer": "compile.optimizer (a file of the group opens with `# @package compile.optimizer`)",
    "learning_rate": "compile.optimizer.learning_rate",
    "jit_compile": "compile.jit_compile",
    "steps_per_execution": "compile.steps_per_execution",
    "batch_size": "data.train.batch_size, or fit.batch_size for arrays",
}


def config_dir() -> Path:
    """The shipped conf/: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"  # looked at first: site-packages may hold somebody else's conf/
    return inside if inside.is_dir() else package.parent / "conf"


def validate(cfg: DictConfig) -> Settings:
    """Check a composed configuration and resolve it.

    A `name` that is null becomes the stem of `ckpt`, else the experiment's name, else "digits". A section that is null
    keeps its defaults. Arguments of compile, callbacks and custom objects that are null are left out.
    """
    try:
        given = _plain(cfg)
        for key in _unknown(given):
            raise UsageError(unknown_key(key))
        settings = _typed(given)
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        raise UsageError(f"{key}: {str(error).splitlines()[0]}{_origin(key)}.") from error
    for complaint in _complaints(settings):
        raise UsageError(complaint)
    return settings


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as it is written, interpolations unresolved; short forms and nulls made regular."""
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    given: dict[str, Any] = {k: v for k, v in raw.items() if v is not None}
    for key in ("devices", "cluster"):
        if isinstance(given.get(key), str):
            given[key] = {"kind": given[key]}
    for key in ("compile", "callbacks", "custom_objects"):
        if isinstance(given.get(key), dict):
            given[key] = {k: v for k, v in given[key].items() if v is not None}
    if "name" not in given:
        given["name"] = _default_name(cfg)
    return given


def _default_name(cfg: DictConfig) -> str:
    ckpt = OmegaConf.select(cfg, "ckpt")
    if ckpt is not None:
        return Path(str(ckpt)).absolute().stem
    chosen = HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None
    return str(chosen).rsplit("/", 1)[-1] if chosen else Settings.name


def _unknown(given: dict[str, Any]) -> Iterator[str]:
    yield from (str(key) for key in given if key not in _KEYS[""])
    for section in _SECTIONS:
        value = given.get(section)
        if isinstance(value, dict):
            yield from (f"{section}.{key}" for key in value if key not in _KEYS[section])


def unknown_key(key: str) -> str:
    """What to say of a key that the configuration does not have: where it was set, what it may have been meant for."""
    section = key.rpartition(".")[0]
    if section.split(".")[0] not in _KEYS or (section and section not in _KEYS):
        near = get_close_matches(section.split(".")[0], _KEYS[""], n=1)
        advice = (
            f"Did you mean {near[0]}?"
            if near and near[0] != section
            else f"For an argument of your own: +{key}=..."
        )
        return f"{key}: unknown key{_origin(key)}. {advice}"
    known = ", ".join(_KEYS[section])
    where = f"Keys of {section}" if section else "Keys"
    return f"{key}: unknown key{_origin(key)}.{_advice(key)}\n{where}: {known}."


def _advice(key: str) -> str:
    if key in _ELSEWHERE:
        return f" Its place is {_ELSEWHERE[key]}."
    section, _, last = key.rpartition(".")
    near = get_close_matches(last, _KEYS[section], n=1)
    if near:
        return f" Did you mean {section}.{near[0]}?" if section else f" Did you mean {near[0]}?"
    places = {name: other for other, names in _KEYS.items() if other for name in names}
    far = get_close_matches(last, list(places), n=1)
    return f" Did you mean {places[far[0]]}.{far[0]}?" if far else ""


def _typed(given: dict[str, Any]) -> Settings:
    schema = OmegaConf.structured(Settings)
    for node in (schema, *(schema[section] for section in _SECTIONS)):
        OmegaConf.set_readonly(node, False)  # frozen dataclasses are read-only to OmegaConf, merging included
    for section in _SECTIONS:
        if not isinstance(given.get(section, {}), (dict, str)):
            raise UsageError(f"{section}: {given[section]!r} is not a mapping{_origin(section)}.")
    merged: Any = OmegaConf.merge(schema, given)
    run_dir: str = merged.run_dir
    if urls.is_remote(run_dir):  # what is named after it (${run_dir}/log.csv) is written on this machine
        merged.run_dir = str(urls.local_tier(run_dir, within=merged.checkpoint.local))
    settings: Settings = OmegaConf.to_object(merged)  # type: ignore[assignment]
    return replace(settings, run_dir=run_dir)


def _complaints(settings: Settings) -> Iterator[str]:
    for key, least in _AT_LEAST.items():
        value = _value(settings, key)
        if value is not None and value < least:
            yield f"{key}: {value} is less than {least}{_origin(key)}."
    for key, allowed in _ONE_OF.items():
        value = _value(settings, key)
        if value not in allowed or isinstance(value, bool):
            names = ", ".join("null" if name is None else str(name) for name in allowed)
            yield f"{key}: {value!r} is none of {names}{_origin(key)}."
    for module in settings.trusted_modules:
        if not all(part.isidentifier() for part in module.split(".")):
            yield f"trusted_modules: {module!r} is no name of a module{_origin('trusted_modules')}."
    if settings.trusted_modules and settings.trust != "code":
        yield f"trusted_modules: are imported under trust=code only, and trust is {settings.trust}{_origin('trust')}."
    for cloud in settings.cluster.notices:
        if cloud not in ("gce", "aws", "azure"):
            yield f"cluster.notices: {cloud!r} is none of gce, aws, azure{_origin('cluster.notices')}."
    if settings.ckpt == "":
        yield f"ckpt: empty{_origin('ckpt')}. Name a file, or leave it out."
    if not _is_frequency(settings.fit.validation_freq):
        yield f"fit.validation_freq: neither a number of epochs nor a list of epochs{_origin('fit.validation_freq')}."
    for key, node in _nodes(settings):
        if "_target_" not in node:
            yield f"{key}: has no _target_, the import path of what to call{_origin(key)}."


def _is_frequency(value: Any) -> bool:
    epochs = value if isinstance(value, list) else [value]
    return all(type(epoch) is int and epoch >= 1 for epoch in epochs)


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _nodes(settings: Settings) -> Iterator[tuple[str, Node]]:
    named = {"model": settings.model, "data.train": settings.data.train}
    named |= {"data.validation": settings.data.validation}
    named |= {f"callbacks.{name}": node for name, node in settings.callbacks.items()}
    yield from ((key, node) for key, node in named.items() if node is not None)


def _origin(key: str) -> str:
    """Where the key was set, in brackets, as far as Hydra can tell: an override, or a file of the user's."""
    if not HydraConfig.initialized():
        return ""
    if override := _override(key):
        return f" (override '{override}')"
    line = re.compile(rf"(^|[\s{{,]){re.escape(key.rpartition('.')[2])}['\"]?\s*:", re.MULTILINE)
    found = [file for file in _files() if line.search(file.read_text("utf-8"))]
    return f" (in {found[0]})" if found else ""


def _override(key: str) -> str | None:
    """The command-line override of the key, else of what it is in, else of something in it."""
    hydra = HydraConfig.get()
    texts: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    named = {text.lstrip("+~").partition("=")[0]: text for text in texts["task"]}
    near = [n for n in named if f"{n}.".startswith(f"{key}.") or f"{key}.".startswith(f"{n}.")]
    near = [n for n in near if n not in hydra.runtime.choices]
    return named[max(near, key=lambda n: (n == key, len(n)))] if near else None


def _files() -> Iterator[Path]:
    """The user's YAML files that went into the configuration."""
    hydra = HydraConfig.get()
    names = [hydra.job.config_name, *(f"{group}/{choice}" for group, choice in hydra.runtime.choices.items())]
    sources = [source.path for source in hydra.runtime.config_sources if source.schema == "file"]
    for folder in (Path(path) for path in sources if Path(path) != config_dir()):
        files = (folder / f"{name}.yaml" for name in names)
        yield from (file for file in files if file.is_file())
