"""The order of the data: which batches epoch e consists of, and how to begin at batch b of it.

A data function that takes `epoch` gives that epoch's data; the generators that it may draw from are set to a function
of (seed, epoch) first. One that does not is called once; its epochs are told apart by replaying them.

`fit` is handed an adapter of ours around one prepared iterator an epoch: Keras otherwise makes a second iterator at
each epoch's end, and every new iterator of a reshuffling dataset draws another order.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from resume.engine import flavour, rng, sample
from resume.engine.feed import Adapter, Batches, Lazy, Sequenced, Window
from resume.engine.handed import MUDDLED, counted, trained
from resume.errors import UsageError

_TRAIN = 1  # what the generators of the data are set from, beside the run's seed and the epoch
# Datasets whose next pass may differ from their first.
_STATEFUL_OPS = ("Shuffle", "Random", "Generator", "PyFunc", "Sample")


@dataclass(frozen=True)
class Feeding:
    """What `fit` is told about the data, beside the data."""

    seed: int = 0
    batch_size: int | None = None
    steps_per_epoch: int | None = None
    shuffle: bool = True
    class_weight: Mapping[int, float] | None = None
    steps_per_execution: int = 1


@dataclass(frozen=True)
class Pass:
    """One epoch's data from some batch on: what `fit` iterates, and how many batches that is."""

    adapter: Adapter
    spec: Any  # structure of tf.TensorSpec: one batch


@dataclass
class Order:
    """The training data of a run. `steps(e)` batches in epoch e; `begin(e, b)` prepares the rest of it from batch b."""

    source: Any
    feeding: Feeding
    strategy: tf.distribute.Strategy
    notes: list[str] = field(default_factory=list)
    _given: Any = None
    _lengths: dict[int, int] = field(default_factory=dict)
    _stream: Any = None
    _beyond: bool = False
    _passed: int | None = None  # epoch hooks of a PyDataset that were called so far
    _muddled: bool = False
    _cached: tuple[int, Any] | None = None

    def value(self, epoch: int) -> Any:
        """What data.train gives for an epoch: a tf.data.Dataset, a PyDataset, or a structure of arrays."""
        if takes_epoch(self.source):
            if self._cached is None or self._cached[0] != epoch:
                with rng.drawn_from(self.feeding.seed, _TRAIN, epoch):
                    value = checked(call(self.source, epoch=epoch, seed=self.feeding.seed), "data.train")
                self._cached = (epoch, value)
            return self._cached[1]
        if self._given is None:
            with rng.drawn_from(self.feeding.seed, _TRAIN):
                given = call(self.source, seed=self.feeding.seed) if callable(self.source) else self.source
            self._given = checked(given, "data.train")
        return self._given

    def spec(self, epoch: int) -> Any:
        """One batch as a structure of tf.TensorSpec, without drawing any."""
        value = self.value(epoch)
        if isinstance(value, keras.utils.PyDataset):
            with rng.drawn_from(self.feeding.seed, _TRAIN, epoch):
                adapter = PyDatasetAdapter(
                    Window(value, np.arange(1)), class_weight=self.feeding.class_weight
                )
                return adapter.get_tf_dataset().element_spec
        if isinstance(value, tf.data.Dataset):
            return _weighted(value, self.feeding.class_weight).element_spec
        return self._rows_dataset(value, np.arange(1)).element_spec

    def steps(self, epoch: int) -> int:
        """Batches in an epoch. Raises UsageError for data without end and without `steps_per_epoch`."""
        if self.feeding.steps_per_epoch:
            return self.feeding.steps_per_epoch
        key = epoch if takes_epoch(self.source) else 0
        if key not in self._lengths:
            self._lengths[key] = self._length(self.value(epoch))
        return self._lengths[key]

    def begin(self, epoch: int, batch: int) -> Pass:
        value, steps = self.value(epoch), self.steps(epoch)
        if isinstance(value, keras.utils.PyDataset):
            return self._py_dataset(value, epoch, batch, steps)
        if isinstance(value, tf.data.Dataset):
            return self._dataset(value, epoch, batch, steps)
        return self._arrays(value, epoch, batch, steps)

    def _length(self, value: Any) -> int:
        if isinstance(value, keras.utils.PyDataset):
            length = value.num_batches
            if length is None:
                raise UsageError("data.train has no length: set fit.steps_per_epoch.")
            return int(length)
        if not isinstance(value, tf.data.Dataset):
            return -(-_rows(value) // self.batch_size)
        known = int(value.cardinality())
        if known == tf.data.INFINITE_CARDINALITY:
            raise UsageError("data.train never ends: set fit.steps_per_epoch.")
        if known != tf.data.UNKNOWN_CARDINALITY:
            return known
        # Left to find the end by itself, Keras's last step would apply a batch that does not exist.
        found = counted.of(value)
        if found is None:
            self._say(
                "data.train does not know its length: counting it once (fit.steps_per_epoch spares that)"
            )
            found = sum(1 for _ in value)
            counted.note(value, found)
        return found

    @property
    def batch_size(self) -> int:
        return self.feeding.batch_size or 32

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _dataset(self, value: tf.data.Dataset, epoch: int, batch: int, steps: int) -> Pass:
        dataset = _weighted(value, self.feeding.class_weight)
        length = int(value.cardinality())
        if not callable(self.source) and sample.draws_anew(value):
            self._say(
                "the data is shuffled without a seed: after a kill another process draws another order. "
                "shuffle(..., seed=0), or a function that takes `epoch`"
            )
        if self.feeding.steps_per_epoch and length != steps and not takes_epoch(self.source):
            if steps % self.feeding.steps_per_execution:
                raise UsageError(
                    f"fit.steps_per_epoch={steps} is no multiple of steps_per_execution="
                    f"{self.feeding.steps_per_execution}: of a stream, Keras would apply more batches than that."
                )
            iterator = self._continued(value, dataset, epoch * steps + batch)
        else:
            if not takes_epoch(self.source):
                self._replay(value, dataset, epoch, steps)
            rest = dataset.repeat() if 0 <= length < steps else dataset
            iterator = iter(self._distributed(rest.skip(batch) if batch else rest))
        return Pass(Adapter(Batches(iterator, dataset.element_spec), steps - batch), dataset.element_spec)

    def _continued(self, value: tf.data.Dataset, dataset: tf.data.Dataset, position: int) -> Any:
        """`steps_per_epoch` cuts a stream: the iterator goes on from epoch to epoch, as Keras's own does."""
        if self._stream is None:
            if trained.of(value) and is_stateful(dataset):
                self._say_passed("its beginning")
            trained.note(value, MUDDLED)  # as many as it was repeated
            if position:
                self._say(f"replaying {position} batches of data.train, which takes no `epoch` argument")
            self._stream = iter(self._distributed(dataset.repeat().skip(position)))
        return self._stream

    def _replay(self, value: tf.data.Dataset, dataset: tf.data.Dataset, epoch: int, steps: int) -> None:
        """Run through the passes before `epoch`, so that reshuffling, generators and the like are where they were."""
        passed = trained.of(value) or 0
        if passed != epoch and is_stateful(dataset):
            if passed < epoch:
                self._say(
                    f"replaying {epoch - passed} epochs of data.train to find its order again; a function that takes "
                    "`epoch` needs no replay"
                )
            else:
                self._say_passed(f"epoch {epoch + 1}")
            for again in range(passed, epoch):
                trained.note(value, again + 1)
                for _ in itertools.islice(dataset, steps):
                    pass
        trained.note(value, min(max(passed, epoch) + 1, MUDDLED))

    def _say_passed(self, there: str) -> None:
        if not self._beyond:
            self._say(
                f"data.train was gone over before in this process, and cannot go back to {there}: its order may "
                "differ; give a function that takes `epoch`"
            )
        self._beyond = True  # and so in all epochs that follow

    def _distributed(self, dataset: tf.data.Dataset) -> Any:
        several = self.strategy.num_replicas_in_sync > 1
        return self.strategy.experimental_distribute_dataset(dataset) if several else dataset

    def _arrays(self, value: Any, epoch: int, batch: int, steps: int) -> Pass:
        order = np.arange(_rows(value))
        if self.feeding.shuffle:
            order = np.random.Generator(np.random.PCG64([self.feeding.seed, _TRAIN, epoch])).permutation(
                order
            )
        # steps_per_epoch may ask for more rows than there are: they come round again, in the same order.
        order = (
            np.resize(order, max(len(order), steps * self.batch_size))
            if self.feeding.steps_per_epoch
            else order
        )
        rows = order[batch * self.batch_size : steps * self.batch_size]
        dataset = self._rows_dataset(value, rows).prefetch(2)
        iterator = iter(self._distributed(dataset))
        return Pass(Adapter(Batches(iterator, dataset.element_spec), steps - batch), dataset.element_spec)

    def _rows_dataset(self, value: Any, rows: np.ndarray[Any, Any]) -> tf.data.Dataset:
        tensors = keras.tree.map_structure(_tensor, value)
        batches = tf.data.Dataset.from_tensor_slices(rows).batch(self.batch_size)
        dataset = batches.map(lambda index: keras.tree.map_structure(lambda t: tf.gather(t, index), tensors))
        return _weighted(dataset, self.feeding.class_weight)

    def _py_dataset(self, value: keras.utils.PyDataset, epoch: int, batch: int, steps: int) -> Pass:
        if not takes_epoch(self.source):
            self._hooks(value, epoch)
        order = np.arange(steps)
        if self.feeding.shuffle:
            order = np.random.Generator(np.random.PCG64([self.feeding.seed, _TRAIN, epoch])).permutation(
                order
            )
        inner = PyDatasetAdapter(
            Window(value, order[batch:]), shuffle=False, class_weight=self.feeding.class_weight
        )
        dataset = inner.get_tf_dataset()
        iterator = Lazy(lambda: iter(self._distributed(dataset)))
        batches = Batches(iterator, dataset.element_spec)
        return Pass(Adapter(batches, steps - batch, inner=inner), dataset.element_spec)

    def _hooks(self, value: keras.utils.PyDataset, epoch: int) -> None:
        """The user's on_epoch_end of each epoch before this one (once more at the start, as Keras does).

        In an object that another training of this process has taken further than that, they begin anew.
        """
        mine = value.inner if isinstance(value, Sequenced) else value
        if self._passed is None:
            known = trained.of(mine) or 0
            self._passed, self._muddled = (known, False) if known <= epoch + 1 else (0, True)
            if self._muddled and _has_hooks(mine):
                self._say_passed(f"epoch {epoch + 1}")
        for done in range(self._passed, epoch + 1):
            trained.note(mine, MUDDLED)  # as long as they are not both called
            with rng.drawn_from(self.feeding.seed, _TRAIN, done):
                value.on_epoch_end()
                value.on_epoch_begin()
            self._passed = done + 1
        trained.note(mine, MUDDLED if self._muddled else self._passed)


def _has_hooks(value: Any) -> bool:
    """Whether it does anything at an epoch's end or beginning."""
    bases = (*flavour.kinds("utils.PyDataset"), *flavour.kinds("utils.Sequence"))
    return any(
        getattr(type(value), hook, None) not in [getattr(base, hook, None) for base in bases]
        for hook in ("on_epoch_end", "on_epoch_begin")
    )


def call(source: Callable[..., Any], **offered: Any) -> Any:
    """Call a data function with those of the offered arguments that it takes."""
    taken = _parameters(source)
    return source(**{name: value for name, value in offered.items() if name in taken})


def takes_epoch(source: Any) -> bool:
    """Whether the data of each epoch is asked for by the epoch's number, and so is a function of it."""
    return callable(source) and "epoch" in _parameters(source)


def _parameters(source: Callable[..., Any]) -> set[str]:
    """The names that a function takes and that its configuration has not given yet; `**kwargs` takes none by name."""
    named = inspect.signature(source).parameters.values()
    bound = source.keywords if isinstance(source, functools.partial) else {}
    return {p.name for p in named if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - set(bound)


def is_stateful(dataset: tf.data.Dataset) -> bool:
    """Whether a second pass may differ from the first, by the operations in the dataset's graph."""
    if any(word in type(part).__name__ for part in sample.parts(dataset) for word in _STATEFUL_OPS):
        return True
    graph = tf.raw_ops.DatasetToGraphV2(
        input_dataset=tf.data.experimental.to_variant(dataset),
        external_state_policy=1,
        strip_device_assignment=True,
    )
    definition = tf.compat.v1.GraphDef.FromString(graph.numpy())
    if (
        not definition.node
    ):  # what TensorFlow writes of more than 2 GB: nobody knows, and a replay is never wrong
        return True
    functions = (node for function in definition.library.function for node in function.node_def)
    ops = {node.op for node in (*definition.node, *functions)}
    return any(word in op for op in ops for word in _STATEFUL_OPS)


def checked(value: Any, name: str) -> Any:
    if isinstance(value, Iterator) or (inspect.isgenerator(value)):
        raise UsageError(
            f"{name} is a generator, which can be read only once. Give a function of `epoch`, a tf.data.Dataset "
            "(from_generator), arrays or a keras.utils.PyDataset."
        )
    if value is None:
        raise UsageError(f"{name} returned None. It must return a tf.data.Dataset, arrays or a PyDataset.")
    if isinstance(value, flavour.kinds("utils.Sequence")) and flavour.of(value) == flavour.TF_KERAS:
        return Sequenced(value)
    return _tuples(value) if not isinstance(value, tf.data.Dataset | keras.utils.PyDataset) else value


def _tuples(value: Any) -> Any:
    """tf.data takes a list for one tensor: lists become tuples, and a lone array the only member of one."""
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) if isinstance(item, list | tuple | dict) else item for item in value)
    if isinstance(value, dict):
        return {key: _tuples(v) if isinstance(v, list | tuple | dict) else v for key, v in value.items()}
    return (value,)


def _rows(value: Any) -> int:
    lengths = {len(array) for array in keras.tree.flatten(value) if array is not None}
    if len(lengths) != 1:
        raise UsageError(f"data.train: its arrays have different numbers of rows: {sorted(lengths)}.")
    return int(lengths.pop())


def _tensor(array: Any) -> tf.Tensor:
    """As Keras's own adapter converts it: floats to the default float type."""
    tensor = tf.convert_to_tensor(np.asarray(array) if not isinstance(array, tf.Tensor) else array)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def _weighted(dataset: tf.data.Dataset, weights: Mapping[int, float] | None) -> tf.data.Dataset:
    """Batches (x, y[, w]) with each sample's weight times its class's; y holds class ids, or one-hot rows."""
    if not weights:
        return dataset
    table = tf.constant([float(weights.get(c, 1.0)) for c in range(max(weights) + 1)])

    def weigh(x: Any, y: Any, w: Any = None) -> Any:
        one_hot = y.shape.rank is not None and y.shape.rank > 1 and y.shape[-1] != 1
        ids = tf.argmax(y, axis=-1) if one_hot else tf.reshape(tf.cast(y, tf.int64), [-1])
        named = tf.cast(tf.size(table), ids.dtype)
        found = tf.where(ids < named, tf.gather(table, tf.minimum(ids, named - 1)), 1.0)
        return x, y, found if w is None else found * tf.cast(w, found.dtype)

    return dataset.map(weigh)
