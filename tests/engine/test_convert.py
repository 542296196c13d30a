"""Any source as a file of Keras 3 or of tf_keras, its optimizer included; what cannot be is refused, not written."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from small import X, Y, classifier, save

import resume
from resume.engine import convert
from resume.errors import ContinuityError, MissingObjectsError, SourceError, UsageError
from resume.state import TrainState, spec_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
OF_KERAS_2 = {
    "standalone": "o01_e115s_mlp_adam/model.h5",
    "nested, decay": "o06_e28_nested_adam_decay/model.h5",
    "several outputs": "o07_e28_multi_out_adam/model.h5",
    "frozen Nadam": "o09_e210_frozen_nadam/model.h5",
    "saved model, shared": "o10_e210_shared_adadelta/saved_model",
    "convolutions": "o21_e215_cnn_bn_skip_sgd_nesterov/model.h5",
    "mixed precision": "o27_e215_mlp_named_adam_mixed/model.keras",
}


@pytest.fixture(autouse=True)
def _fixtures_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FIXTURES))
    yield
    for name in ("builders", "custom_objects"):
        sys.modules.pop(name, None)
    keras.config.set_dtype_policy("float32")


def content(state: TrainState) -> dict[str, Any]:
    """What a model and its optimizer are made of, by name."""
    of_a_run = ("seeds/", "metrics/", "rng/", "callbacks/")
    return {n: spec_of(state.arrays[n]) for n in state.specs if not n.startswith(of_a_run)}


def trained(**compile_args: Any) -> keras.Model:
    model = classifier(**compile_args)
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    return model


def predictions(model: Any, x: Any) -> np.ndarray[Any, Any]:
    return np.array(model(x))


# ---- Keras 2 to Keras 3 ----


@pytest.mark.parametrize("source", OF_KERAS_2.values(), ids=OF_KERAS_2.keys())
def test_to_every_format_of_keras_3_and_around(source: str, tmp_path: Path) -> None:
    """source -> native -> .keras -> native: the same arrays; and .h5 beside them."""
    first = convert.convert(FIXTURES / source, tmp_path / "first")
    second = convert.convert(tmp_path / "first", tmp_path / "a.keras")
    third = convert.convert(tmp_path / "a.keras", tmp_path / "third")
    fourth = convert.convert(FIXTURES / source, tmp_path / "a.h5")
    assert [c.format for c in (first, second, third, fourth)] == ["native", "keras", "native", "h5"]
    wanted = content(resume.read(tmp_path / "first"))
    assert wanted == content(resume.read(tmp_path / "third"))
    assert first.slots == second.slots == third.slots == fourth.slots > 0
    assert first.arrays == second.arrays == third.arrays
    for name in ("a.keras", "a.h5"):
        model, proof = resume.load(tmp_path / name)
        assert proof.iterations_restored == 7
        assert {f.name.split("/")[0] for f in proof.findings} <= {"seeds"}
        assert isinstance(model, keras.Model)


def test_the_source_is_kept_bit_for_bit_and_differences_are_said(tmp_path: Path) -> None:
    source = resume.read(FIXTURES / "o03_e115_embed_lstm_rmsprop/model.h5")
    done = resume.convert(source.path, tmp_path / "a.keras")
    moved = resume.read(tmp_path / "a.keras")
    for name in (*source.weights, *source.slots):
        assert spec_of(moved.arrays[name]) == spec_of(source.arrays[name]), name
    assert moved.iterations == source.iterations == 7
    assert [sentence.split(":")[0] for sentence in done.differences] == [
        "hard_sigmoid (lstm)", "Embedding (emb) under RMSprop", "RMSprop"
    ]  # fmt: skip
    assert done.fresh == ("seeds/lstm/lstm_cell/seed",)
    assert done.unheld == ("seeds",)


def test_plain_keras_loads_what_was_written(tmp_path: Path) -> None:
    """Slots included: a .keras file of ours is nobody's special case."""
    source = FIXTURES / "o26_e215_mlp_named_adam_clip_wd/model.keras"
    resume.convert(source, tmp_path / "a.keras")
    model = keras.saving.load_model(tmp_path / "a.keras")
    state = resume.read(source)
    assert int(model.optimizer.iterations) == 7
    assert model.optimizer.get_config()["weight_decay"] == state.optimizer.config["weight_decay"]
    live = sorted(np.array(v).tobytes() for v in model.optimizer.variables if np.ndim(v))
    assert live == sorted(state.arrays[name].tobytes() for name in state.slots)


def nadam_of_keras_2(path: Path) -> float:
    """Writes the file; the product that its optimizer had, which no .keras file of Keras 2 holds."""
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(6,)), tf_keras.layers.Dense(1)])
    model.compile(tf_keras.optimizers.Nadam(), "mse")
    for _ in range(3):
        model.train_on_batch(X, X[:, :1])
    model.save(path)
    return float(model.optimizer._u_product)


def test_what_no_file_of_keras_2_holds_is_computed_and_said(tmp_path: Path) -> None:
    true = nadam_of_keras_2(tmp_path / "a.keras")
    done = resume.convert(tmp_path / "a.keras", tmp_path / "b.keras")
    assert list(done.made) == ["optimizer/u_product"]
    assert "computed from 3 iterations" in done.made["optimizer/u_product"]
    assert float(resume.read(tmp_path / "b.keras").arrays["optimizer/u_product"]) == pytest.approx(
        true, rel=1e-6
    )
    found = json.loads(json.dumps(done.json()))
    assert found["proof"]["verdict"] == "exact"
    assert found["made"] == done.made


def test_what_keras_3_has_no_use_for_is_left_behind_and_said(tmp_path: Path) -> None:
    done = resume.convert(FIXTURES / "o06_e28_nested_adam_decay/model.h5", tmp_path / "a.keras")
    assert done.dropped == {"optimizer/learning_rate": "a schedule gives the rate"}
    rate = resume.read(tmp_path / "a.keras").optimizer.config["learning_rate"]
    assert (rate["class_name"], rate["config"]["decay_rate"]) == ("InverseTimeDecay", 0.01)


def test_without_an_architecture_it_goes_into_the_model_given(tmp_path: Path) -> None:
    import builders

    def model() -> keras.Model:
        build, _, _, compiled = builders.BUILDERS["nested"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras 3 would rather have an Input than an input_shape
            made = build(keras)
        made.compile(keras.optimizers.Adam(), **compiled(keras))
        return made

    source = FIXTURES / "o06_e28_nested_adam_decay/weights_tf/ckpt"
    with pytest.raises(SourceError, match="holds no model"):
        resume.convert(source, tmp_path / "a.keras")
    resume.convert(source, tmp_path / "a.keras", model=model())
    whole = resume.read(FIXTURES / "o06_e28_nested_adam_decay/model.h5")
    found = resume.read(tmp_path / "a.keras")
    for name in (*whole.weights, *whole.slots):
        assert spec_of(found.arrays[name]) == spec_of(whole.arrays[name]), name
    with pytest.raises(UsageError, match="a tf_keras model, and keras is asked for"):
        resume.convert(source, tmp_path / "b.keras", model=tf_keras.Sequential([tf_keras.layers.Dense(1)]))


def test_objects_of_the_users_own(tmp_path: Path) -> None:
    import builders

    source = FIXTURES / "o30_e215_custom_unreg_legacy_adam/model.h5"
    with pytest.raises(MissingObjectsError) as raised:
        resume.convert(source, tmp_path / "a.keras")
    assert raised.value.names == ("PlainScale", "plain_loss", "plain_mae")
    assert not (tmp_path / "a.keras").exists()
    custom = builders.make_custom(keras)
    done = resume.convert(source, tmp_path / "a.keras", custom_objects=custom)
    assert done.proof.verdict == "exact"
    model, _ = resume.load(tmp_path / "a.keras", custom_objects=custom)
    assert isinstance(model.get_layer("plain"), custom["PlainScale"])


def test_everything_without_an_equivalent_is_listed_at_once(tmp_path: Path) -> None:
    inputs = tf_keras.Input((6, 2))
    x = tf_keras.layers.LocallyConnected1D(2, 3, name="local")(inputs)
    x = tf_keras.layers.Flatten()(x)
    model = tf_keras.Model(
        inputs, tf_keras.layers.Dense(1, kernel_constraint="radial_constraint", name="d")(x)
    )
    model.compile(tf_keras.optimizers.legacy.Adam(), "mse")
    model.save(tmp_path / "a.keras")
    with pytest.raises(UsageError) as raised:
        resume.convert(tmp_path / "a.keras", tmp_path / "b.keras")
    first, *others = str(raised.value).splitlines()
    assert first == f"{tmp_path / 'a.keras'}: cannot be moved to Keras 3:"
    assert [line.partition(":")[0] for line in others] == ["  LocallyConnected1D 'local'", "  Dense 'd'"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keras"]


def of_keras_2(*layers: Any, optimizer: Any = None, loss: Any = "mse") -> Any:
    model = tf_keras.Sequential(list(layers))
    model.compile(optimizer or tf_keras.optimizers.Adam(0.01), loss)
    model.train_on_batch(X, X[:, :1])
    return model


def continued(path: Path, model: Any, target: Path, **arguments: Any) -> Any:
    """Both go on from the same state for three steps: the same outputs then, or an AssertionError."""
    model.save(path)
    done = resume.convert(path, target, **arguments)
    moved, _ = resume.load(target, custom_objects=arguments.get("custom_objects"))
    for _ in range(3):
        model.train_on_batch(X, X[:, :1])
        moved.train_on_batch(X, X[:, :1])
    np.testing.assert_allclose(predictions(moved, X), predictions(model, X), rtol=1e-5, atol=1e-6)
    return done


def test_what_is_inside_a_frozen_wrapper_stays_frozen(tmp_path: Path) -> None:
    layers = tf_keras.layers
    frozen = layers.TimeDistributed(layers.Dense(2), trainable=False)
    model = of_keras_2(layers.Reshape((3, 2), input_shape=(6,)), frozen, layers.Flatten(), layers.Dense(1))
    done = continued(tmp_path / "a.keras", model, tmp_path / "b.keras")
    assert (done.slots, done.fresh, done.differences) == (4, (), ())


def test_a_part_that_only_its_missing_slots_show_to_be_frozen_is_said(tmp_path: Path) -> None:
    """No config of Keras 2 says that the model around a layer was frozen."""
    layers = tf_keras.layers
    base = tf_keras.Sequential([layers.Dense(3, input_shape=(6,))], name="base")
    base.trainable = False
    base.layers[0].trainable = True
    model = of_keras_2(base, layers.Dense(1))
    model.save(tmp_path / "a_saved_model", save_format="tf")
    done = resume.convert(tmp_path / "a_saved_model", tmp_path / "b.keras")
    assert [d.split(":")[0] for d in done.differences] == ["base/dense/kernel and 1 more"]
    assert len(done.fresh) == 4


def test_layers_with_slashes_in_their_names(tmp_path: Path) -> None:
    layers = tf_keras.layers
    model = of_keras_2(layers.Dense(3, input_shape=(6,), name="block1/dense"), layers.Dense(1, name="head"))
    done = continued(tmp_path / "a.keras", model, tmp_path / "b.keras")
    assert done.differences == (
        "layer names may have no slash in Keras 3: block1/dense is block1_dense now (and 1 more like it)",
    )


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_an_optimizer_and_a_loss_of_the_users_own(tmp_path: Path) -> None:
    def own(library: Any) -> dict[str, Any]:
        class Slower(library.optimizers.Adam):  # type: ignore[misc, name-defined]
            pass

        class Twice(library.losses.Loss):  # type: ignore[misc, name-defined]
            def call(self, y_true: Any, y_pred: Any) -> Any:
                return 2 * (y_true - y_pred) ** 2

        return {"Slower": Slower, "Twice": Twice}

    old = own(tf_keras)
    model = of_keras_2(
        tf_keras.layers.Dense(1, input_shape=(6,)), optimizer=old["Slower"](0.01), loss=old["Twice"]()
    )
    done = continued(tmp_path / "a.h5", model, tmp_path / "b.keras", custom_objects=own(keras))
    assert (done.slots, done.proof.verdict) == (4, "exact")


@pytest.mark.parametrize("name", ["a.keras", "a_saved_model"])
def test_a_fixed_loss_scale(name: str, tmp_path: Path) -> None:
    inner = tf_keras.optimizers.Adam(0.01)
    scaled = tf_keras.mixed_precision.LossScaleOptimizer(inner, dynamic=False, initial_scale=64)
    model = of_keras_2(tf_keras.layers.Dense(1, input_shape=(6,)), optimizer=scaled)
    model.save(tmp_path / name)
    done = resume.convert(tmp_path / name, tmp_path / "b.keras")
    assert done.made["optimizer/loss_scale/dynamic_scale"] == "64, from the settings: the scale was fixed"
    assert any(d.startswith("a fixed loss scale") for d in done.differences)


def test_metrics_of_a_trained_model_keep_their_names(tmp_path: Path) -> None:
    """Keras 2 writes `one_mae` for the metric `mae` of the output `one`."""
    inputs = tf_keras.Input((6,))
    ends = [tf_keras.layers.Dense(1, name=name)(inputs) for name in ("one", "two")]
    model = tf_keras.Model(inputs, ends)
    model.compile("adam", "mse", metrics={"one": ["mae"]})
    model.train_on_batch(X, [X[:, :1]] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "a.h5")
    resume.convert(tmp_path / "a.h5", tmp_path / "b.keras")
    moved, _ = resume.load(tmp_path / "b.keras")
    assert "one_mae" in moved.evaluate(X, [X[:, :1]] * 2, verbose=0, return_dict=True)


def test_a_model_that_is_given_holds_and_what_differs_is_said(tmp_path: Path) -> None:
    source = save(trained(optimizer=keras.optimizers.Adam(beta_1=0.8)), tmp_path / "a.keras")
    done = resume.convert(source, tmp_path / "b.keras", model=classifier())
    assert done.differences == ("optimizer.beta_1: 0.8 in the source, 0.9 in the model given, which holds",)
    with pytest.raises(UsageError, match="model: str is no model of Keras"):
        resume.convert(source, tmp_path / "c.keras", model="mine")


# ---- within one generation ----


def test_keras_3_keeps_everything_between_its_formats(tmp_path: Path) -> None:
    source = save(trained(), tmp_path / "a.keras")
    for target in ("b.h5", "c", "d.keras"):
        done = resume.convert(source, tmp_path / target)
        assert done.differences == ()
        assert content(resume.read(tmp_path / target)) == content(resume.read(source)), target
    old, new = (predictions(resume.load(tmp_path / p)[0], X) for p in ("a.keras", "b.h5"))
    np.testing.assert_array_equal(old, new)


def test_a_live_model_is_not_spoiled_by_writing_an_h5(tmp_path: Path) -> None:
    """Keras's own .h5 writer takes the optimizer out of the live model, and the next file comes back with RMSprop."""
    source = save(trained(loss=keras.losses.SparseCategoricalCrossentropy()), tmp_path / "a.weights.h5.keras")
    model, _ = resume.load(source)
    resume.convert(source, tmp_path / "b.h5", model=model)
    model.save(tmp_path / "c.keras")
    assert resume.read(tmp_path / "c.keras").optimizer.class_name == "Adam"
    assert content(resume.read(tmp_path / "b.h5")) == content(resume.read(tmp_path / "c.keras"))


def test_a_loss_by_its_short_name_comes_back_from_the_h5(tmp_path: Path) -> None:
    model = classifier(loss="mse", metrics=["mae"])
    model.fit(X, np.eye(3)[Y], verbose=0)
    resume.convert(save(model, tmp_path / "a.keras"), tmp_path / "b.h5")
    loaded = keras.saving.load_model(tmp_path / "b.h5", compile=True)
    np.testing.assert_array_equal(predictions(loaded, X), predictions(model, X))


def test_a_run_as_our_own_checkpoint_keeps_its_place(tmp_path: Path) -> None:
    resume.fit(classifier(), X, Y, run_dir=tmp_path / "run", epochs=2, batch_size=8, verbose=0)
    done = resume.convert(tmp_path / "run", tmp_path / "copy")
    old, new = resume.read(tmp_path / "run"), resume.read(tmp_path / "copy")
    assert (new.epoch, new.batch, new.iterations) == (old.epoch, old.batch, old.iterations) == (2, 0, 12)
    assert dict(new.specs) == dict(old.specs)
    assert new.progress.keys() == old.progress.keys()
    assert done.unheld == ()
    assert set(resume.convert(tmp_path / "run", tmp_path / "a.keras").unheld) >= {"position", "seeds"}


@pytest.mark.parametrize("target", ["a.h5", "a.keras", "a_saved_model"])
def test_tf_keras_writes_its_own_formats(target: str, tmp_path: Path) -> None:
    source = FIXTURES / "o22_e215_embed_lstm_rmsprop_mom_centered/model.h5"
    format = "savedmodel" if target == "a_saved_model" else None
    done = resume.convert(source, tmp_path / target, flavour="tf_keras", format=format)
    assert (done.flavour, done.differences) == ("tf_keras", ())
    old, new = resume.read(source), resume.read(tmp_path / target)
    assert new.flavour == "tf_keras"
    for name in (*old.weights, *old.slots, "optimizer/iteration"):
        assert spec_of(new.arrays[name]) == spec_of(old.arrays[name]), name


def test_a_legacy_optimizer_is_refused_by_the_format_that_never_holds_it(tmp_path: Path) -> None:
    source = FIXTURES / "o19_e215_mlp_legacy_adam/model.h5"
    with pytest.raises(ContinuityError, match="was not written whole, so it was not kept"):
        resume.convert(source, tmp_path / "a.keras", flavour="tf_keras")
    assert list(tmp_path.iterdir()) == []


# ---- what is not done ----


def test_a_source_without_its_optimizer(tmp_path: Path) -> None:
    source = FIXTURES / "o31_e215_mlp_adam_noopt/model.h5"
    with pytest.raises(ContinuityError) as raised:
        resume.convert(source, tmp_path / "a.keras")
    assert str(raised.value).splitlines() == [
        f"{source}: this file was saved without its optimizer; its weights are whole. Nothing was written.",
        "To go on with a fresh optimizer, which counts its steps from 0: --accept optimizer (in Python: "
        "accept=['optimizer'])",
    ]
    done = resume.convert(source, tmp_path / "a.keras", accept=["optimizer"])
    assert done.slots == 0 or done.fresh


def test_damage_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="NaN or infinite"):
        resume.convert(FIXTURES / "on5_h5_nan_slot/model.h5", tmp_path / "a.keras")
    assert list(tmp_path.iterdir()) == []


def test_there_is_no_way_back(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of Keras 3, and there is no way back to Keras 2"):
        resume.convert(FIXTURES / "o45_k315_mlp_adam_control/model.h5", tmp_path / "a.h5", flavour="tf_keras")


def test_a_target_that_exists(tmp_path: Path) -> None:
    source, target = FIXTURES / "o45_k315_mlp_adam_control/model.h5", tmp_path / "a.keras"
    target.write_text("mine")
    with pytest.raises(UsageError, match=r"a\.keras: exists\. Name another, or say --force"):
        resume.convert(source, target)
    assert target.read_text() == "mine"
    resume.convert(source, target, overwrite=True)
    assert resume.read(target).iterations == 7
    with pytest.raises(UsageError, match="is the source itself"):
        resume.convert(target, target, overwrite=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="a directory that is no checkpoint"):
        resume.convert(source, tmp_path / "folder", overwrite=True)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "onnx"}, "format=onnx: not one of keras, h5, native, savedmodel"),
        ({"flavour": "jax"}, "flavour=jax: neither keras nor tf_keras"),
        ({"format": "savedmodel"}, "Keras 3 writes no optimizer into one"),
        ({"format": "keras"}, "Keras reads a .keras archive under that ending only"),
    ],
)
def test_what_cannot_be_asked_for(arguments: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        resume.convert(FIXTURES / "o45_k315_mlp_adam_control/model.h5", tmp_path / "target", **arguments)
