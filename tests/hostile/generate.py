#!/usr/bin/env python
"""Write a small corpus of broken and hostile model files: `python tests/hostile/generate.py OUT`.

Nothing in it does harm: code that runs makes an empty folder below OUT/markers, and the files that others point to lie
in OUT/canary. What each file must come to stands in OUT/manifest.json (scripts/bench/hostile reads it). The ways in
which files attack are published ones; the bytes are made here.
"""

from __future__ import annotations

import base64
import copy
import json
import marshal
import os
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import h5py
import keras
import numpy as np
import tf_keras

Config = dict[str, Any]
NAMES = {"keras": "m.keras", "h5": "m.h5"}
WEIGHTS = "model.weights.h5"


class Corpus:
    """The folder that is written, and the list of what is in it."""

    def __init__(self, out: Path) -> None:
        self.out = out.absolute()
        self.cases: list[dict[str, Any]] = []
        for name in ("base", "cases", "canary", "markers"):
            (self.out / name).mkdir(parents=True)

    def base(self, lib: str, fmt: str) -> Path:
        return self.out / "base" / f"{lib}_{NAMES[fmt]}"

    def add(self, cls: str, lib: str, fmt: str, name: str, *, expect: str = "reject", note: str = "") -> Path:
        """Where the file of a new case belongs."""
        path = self.out / "cases" / f"{cls}-{lib}-{fmt}-{name}" / NAMES[fmt]
        path.parent.mkdir()
        entry = {"id": path.parent.name, "cls": cls, "lib": lib, "fmt": fmt, "expect": expect, "note": note}
        self.cases.append({**entry, "path": str(path.relative_to(self.out)), "setup": []})
        return path

    def write_manifest(self) -> None:
        folders = {"marker_dir": str(self.out / "markers"), "canary_dir": str(self.out / "canary")}
        (self.out / "manifest.json").write_text(json.dumps({**folders, "cases": self.cases}, indent=0))


def rows() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(0)
    return random.randn(40, 4).astype("float32"), random.randn(40, 1).astype("float32")


def trained(library: Any) -> Any:
    """A model with two kernels of one shape and a BatchNormalization, after five steps of Adam."""
    library.utils.set_random_seed(11)
    inputs = library.Input((4,), name="features")
    x = library.layers.Dense(8, activation="relu", name="first")(inputs)
    x = library.layers.BatchNormalization(name="norm")(x)
    x = library.layers.Dense(8, activation="tanh", name="second")(x)
    model = library.Model(inputs, library.layers.Dense(1, name="last")(x), name="small")
    model.compile(library.optimizers.Adam(0.01), library.losses.MeanSquaredError())
    x, y = rows()
    model.fit(x, y, batch_size=8, verbose=0, shuffle=False)
    return model


def write_bases(corpus: Corpus) -> None:
    for lib, library in (("k3", keras), ("k2", tf_keras)):
        model = trained(library)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras calls .h5 legacy
            for fmt in ("keras", "h5"):  # .h5 last: writing it spoils the live compile config
                model.save(corpus.base(lib, fmt))
        weights = {f"w{i}": np.array(v) for i, v in enumerate(model.weights)}
        slots = {f"o{i}": np.array(v) for i, v in enumerate(model.optimizer.variables)}
        y = np.array(model(rows()[0][:3]))
        np.savez(corpus.out / "base" / f"ref_{lib}.npz", **weights, **slots, y=y)
    shutil.copy(corpus.base("k3", "h5"), corpus.out / "canary" / "other.h5")
    (corpus.out / "canary" / "words.txt").write_text("one\ntwo\n")


# -- changing a file ---------------------------------------------------------------------------------------------------


def with_weights(corpus: Corpus, path: Path, lib: str, fmt: str, change: Callable[[h5py.File], Any]) -> None:
    """A copy of the base, its HDF5 part changed."""
    inner = path.with_suffix(".part") if fmt == "keras" else path
    if fmt == "keras":
        with zipfile.ZipFile(corpus.base(lib, fmt)) as archive:
            inner.write_bytes(archive.read(WEIGHTS))
    else:
        shutil.copy(corpus.base(lib, fmt), inner)
    with h5py.File(inner, "r+") as file:
        change(file)
    if fmt == "keras":
        rezip(corpus.base(lib, fmt), path, {WEIGHTS: inner.read_bytes()})
        inner.unlink()


def with_config(corpus: Corpus, path: Path, lib: str, fmt: str, change: Callable[[Config], Any]) -> None:
    """A copy of the base, its model config changed; `change` may return the new text."""
    if fmt == "keras":
        with zipfile.ZipFile(corpus.base(lib, fmt)) as archive:
            config = json.loads(archive.read("config.json"))
        text = change(config)
        rezip(corpus.base(lib, fmt), path, {"config.json": (text or json.dumps(config)).encode()})
        return
    shutil.copy(corpus.base(lib, fmt), path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        text = change(config)
        file.attrs["model_config"] = text or json.dumps(config)


def rezip(source: Path, target: Path, changed: dict[str, bytes], **kwargs: Any) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **kwargs) as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name, old.read(name)))


def layer(config: Config, name: str) -> Config:
    return next(item for item in config["config"]["layers"] if item["config"]["name"] == name)


def kernel(lib: str, fmt: str, name: str = "second") -> str:
    """Address of a kernel in the HDF5 part."""
    if fmt == "keras":
        place = {"first": "dense", "second": "dense_1", "last": "dense_2"}[name]
        return f"layers/{place}/vars/0"
    return f"model_weights/{name}/{name}/kernel" + (":0" if lib == "k2" else "")


def slots(lib: str, fmt: str, file: h5py.File) -> list[str]:
    """Addresses of the optimizer's variables, in order."""
    if fmt == "keras":
        return [f"optimizer/vars/{n}" for n in range(len(file["optimizer/vars"]))]
    names = file["optimizer_weights"].attrs["weight_names"]
    return [f"optimizer_weights/{n.decode() if isinstance(n, bytes) else n}" for n in names]


def put(file: h5py.File, address: str, value: Any) -> None:
    del file[address]
    file[address] = value


# -- the cases ---------------------------------------------------------------------------------------------------------


def valid(corpus: Corpus, lib: str, fmt: str) -> None:
    shutil.copy(corpus.base(lib, fmt), corpus.add("control", lib, fmt, "valid", expect="accept"))
    path = corpus.add("control", lib, fmt, "compressed", expect="accept", note="repacked with gzip")
    with_weights(corpus, path, lib, fmt, lambda file: pack(file, kernel(lib, fmt)))
    path = corpus.add("control", lib, fmt, "big-endian", expect="accept")
    address = kernel(lib, fmt)
    with_weights(corpus, path, lib, fmt, lambda f: put(f, address, f[address][()].astype(">f4")))


def pack(file: h5py.File, address: str) -> None:
    value = file[address][()]
    del file[address]
    file.create_dataset(address, data=value, compression="gzip")


def bytes_of_it(corpus: Corpus, lib: str, fmt: str) -> None:
    whole = corpus.base(lib, fmt).read_bytes()
    for name, data in (
        ("empty", b""),
        ("half", whole[: len(whole) // 2]),
        ("last-byte", whole[:-1]),
        ("text", b"epoch,loss\n" * 40),
        ("noise", np.random.RandomState(3).bytes(len(whole))),
    ):
        corpus.add("truncated", lib, fmt, name).write_bytes(data)
    corpus.add("not-a-file", lib, fmt, "folder").mkdir()
    os.mkfifo(corpus.add("not-a-file", lib, fmt, "pipe"))
    corpus.add("not-a-file", lib, fmt, "loop").symlink_to("m" + NAMES[fmt][1:])


def foreign_code(corpus: Corpus, lib: str, fmt: str) -> None:
    def case(name: str, change: Callable[[Config, str], Any]) -> None:
        path = corpus.add("code", lib, fmt, name)
        mark = str(corpus.out / "markers" / path.parent.name)
        with_config(corpus, path, lib, fmt, lambda config: change(config, mark))

    case("lambda", lambda config, mark: replace(config, bytecode(lib, mark)))
    case("import", lambda config, mark: replace(config, foreign("this", "Zen", {"name": "second"})))
    words = str(corpus.out / "canary" / "words.txt")
    lookup = {"name": "second", "vocabulary": words, "max_tokens": None, "num_oov_indices": 1}
    case("vocabulary", lambda config, mark: replace(config, own(fmt, "StringLookup", lookup)))
    torch = {"name": "second", "module": base64.b64encode(b"cos\nmakedirs\n").decode()}
    case("torch", lambda config, mark: replace(config, own(fmt, "TorchModuleWrapper", torch)))


def bytecode(lib: str, mark: str) -> Config:
    code = compile(f"lambda x: (__import__('os').makedirs({mark!r}, exist_ok=True), x)[1]", "file", "eval")
    text = base64.b64encode(marshal.dumps(code.co_consts[0])).decode()
    if lib == "k2":
        config = {"function": [text, None, None], "function_type": "lambda", "module": "__main__"}
        config |= {"output_shape": None, "output_shape_type": "raw", "output_shape_module": None}
    else:
        value = {"code": text, "defaults": None, "closure": None}
        config = {"function": {"class_name": "__lambda__", "config": value}}
    return {"class_name": "Lambda", "config": {"name": "second", "arguments": {}, **config}}


def foreign(module: str, name: str, config: Config) -> Config:
    return {"module": module, "class_name": name, "config": config, "registered_name": name}


def own(fmt: str, name: str, config: Config) -> Config:
    described = {"class_name": name, "config": config}
    return described if fmt == "h5" else {"module": "keras.layers", **described, "registered_name": None}


def replace(config: Config, item: Config) -> None:
    old = layer(config, "second")
    kept = {key: old[key] for key in ("name", "inbound_nodes") if key in old}
    old.clear()
    old.update(copy.deepcopy(item), **kept)


def links(corpus: Corpus, lib: str, fmt: str) -> None:
    other, here = str(corpus.out / "canary" / "other.h5"), kernel(lib, fmt)

    def case(name: str, change: Callable[[h5py.File], Any]) -> None:
        with_weights(corpus, corpus.add("links", lib, fmt, name), lib, fmt, change)

    case("external", lambda f: put(f, here, h5py.ExternalLink(other, "/model_weights")))
    case("soft", lambda f: put(f, here, h5py.SoftLink("/" + kernel(lib, fmt, "last"))))
    case("hard", lambda f: put(f, here, f[kernel(lib, fmt, "first")]))
    case("virtual", lambda f: virtual(f, here, other))
    case("raw", lambda f: raw(f, here, str(corpus.out / "canary" / "words.txt")))
    root = "layers" if fmt == "keras" else "model_weights"
    case("cycle", lambda f: f[root].__setitem__("again", f[root]))


def virtual(file: h5py.File, address: str, other: str) -> None:
    del file[address]
    layout = h5py.VirtualLayout(shape=(8, 8), dtype="f4")
    layout[:] = h5py.VirtualSource(other, "x", shape=(8, 8), dtype="f4")
    file.create_virtual_dataset(address, layout)


def raw(file: h5py.File, address: str, other: str) -> None:
    del file[address]
    file.create_dataset(address, shape=(2,), dtype="f4", external=[(other, 0, 8)])


def sizes(corpus: Corpus, lib: str, fmt: str) -> None:
    def huge(file: h5py.File) -> None:
        address = kernel(lib, fmt)
        del file[address]
        file.create_dataset(address, shape=(1 << 25, 1 << 23), dtype="f4", chunks=(64, 64))

    with_weights(corpus, corpus.add("size", lib, fmt, "array"), lib, fmt, huge)

    def config(name: str, change: Callable[[Config], Any]) -> None:
        with_config(corpus, corpus.add("size", lib, fmt, name), lib, fmt, change)

    config("units", lambda c: layer(c, "second")["config"].update(units=10**9))
    config("digits", lambda c: json.dumps(c).replace('"units": 8', '"units": 1' + "0" * 300, 1))
    config("depth", lambda c: json.dumps(c)[:-1] + ', "x": ' + "[" * 10**5 + "]" * 10**5 + "}")
    if fmt == "keras":
        path = corpus.add("size", lib, fmt, "zeros")
        rezip(
            corpus.base(lib, fmt), path, {"config.json": b" " * (1 << 28)}, compression=zipfile.ZIP_DEFLATED
        )


def archives(corpus: Corpus, lib: str) -> None:
    base = corpus.base(lib, "keras")
    for name in ("config.json", WEIGHTS):
        path = corpus.add("archive", lib, "keras", f"without-{name.split('.')[1]}")
        with zipfile.ZipFile(base) as old, zipfile.ZipFile(path, "w") as new:
            for member in old.namelist():
                if member != name:
                    new.writestr(member, old.read(member))
    path = corpus.add("archive", lib, "keras", "checksum")
    data = bytearray(base.read_bytes())
    data[data.index(b"\x89HDF") + 9000] ^= 1
    path.write_bytes(bytes(data))
    rezip(base, corpus.add("archive", lib, "keras", "garbage"), {"config.json": b"{nope"})
    rezip(base, corpus.add("archive", lib, "keras", "list"), {"config.json": b"[1, 2]"})


def values(corpus: Corpus, lib: str, fmt: str) -> None:
    def case(name: str, change: Callable[[h5py.File], Any]) -> None:
        with_weights(corpus, corpus.add("values", lib, fmt, name), lib, fmt, change)

    def slot(number: int, value: Callable[[np.ndarray], Any]) -> Callable[[h5py.File], Any]:
        def change(file: h5py.File) -> None:
            address = slots(lib, fmt, file)[number]
            put(file, address, value(file[address][()]))

        return change

    first = 2 if lib == "k3" else 1  # behind the counter and, in Keras 3, the learning rate
    here = kernel(lib, fmt)
    case("nan", lambda f: put(f, here, np.full((8, 8), np.nan, "f")))
    case("lost", lambda f: put(f, here, np.zeros((8, 8), "f")))
    case("shape", lambda f: put(f, here, np.zeros((8, 9), "f")))
    case("integers", lambda f: put(f, here, np.ones((8, 8), "i8")))
    case("missing", lambda f: f.__delitem__(here))
    for name, value in {"nan": np.nan, "negative": -3, "huge": 2**62, "half": 4.5, "zero": 0}.items():
        case(f"steps-{name}", slot(0, lambda old, value=value: np.asarray(value)))
    case("slot-nan", slot(first, lambda old: old * np.nan))
    case("slot-negative", slot(first + 1, lambda old: -np.ones_like(old)))
    case("slots-exchanged", exchanged(lib, fmt, first, first + 1))
    case("slots-of-others", exchanged(lib, fmt, first + 8, first + 1))
    case("slots-zero", lambda f: [slot(n, np.zeros_like)(f) for n in range(first, len(slots(lib, fmt, f)))])


def exchanged(lib: str, fmt: str, one: int, other: int) -> Callable[[h5py.File], Any]:
    def change(file: h5py.File) -> None:
        a, b = (slots(lib, fmt, file)[n] for n in (one, other))
        values = file[a][()], file[b][()]
        put(file, a, np.resize(values[1], values[0].shape))
        put(file, b, np.resize(values[0], values[1].shape))

    return change


def configs(corpus: Corpus, lib: str, fmt: str) -> None:
    def case(name: str, change: Callable[[Config], Any]) -> None:
        with_config(corpus, corpus.add("config", lib, fmt, name), lib, fmt, change)

    case("nan", lambda c: layer(c, "norm")["config"].update(epsilon=float("nan")))
    case("momentum", lambda c: layer(c, "norm")["config"].update(momentum=2.0))
    case("negative", lambda c: layer(c, "second")["config"].update(units=-8))
    case("text", lambda c: layer(c, "second")["config"].update(units="8"))
    case("twice", lambda c: layer(c, "last")["config"].update(name="second"))
    case("unknown", lambda c: layer(c, "second").update(class_name="NoSuchLayer"))
    case("activation", lambda c: layer(c, "second")["config"].update(activation="no_such_function"))
    case("no-layers", lambda c: c["config"].update(layers=[]))
    case("loose", lambda c: c["config"]["layers"].remove(layer(c, "second")))
    case("loop", loop)
    case("key-twice", lambda c: json.dumps(c)[:-1] + ', "config": {}}')


def loop(config: Config) -> None:
    """The first layer is called on the last one's output."""
    layer(config, "first")["inbound_nodes"] = json.loads(
        json.dumps(layer(config, "last")["inbound_nodes"]).replace('"second"', '"last"')
    )


def generate(out: Path) -> Corpus:
    corpus = Corpus(out)
    write_bases(corpus)
    for lib in ("k3", "k2"):
        for fmt in ("keras", "h5"):
            for part in (valid, bytes_of_it, foreign_code, links, sizes, values, configs):
                part(corpus, lib, fmt)
        archives(corpus, lib)
    corpus.write_manifest()
    return corpus


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(len(generate(Path(sys.argv[1])).cases), "cases")
