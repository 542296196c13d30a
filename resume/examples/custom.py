"""A user's own module: a custom layer, loss, metric and learning-rate schedule, and a model made of them."""

from typing import Any

import keras
from keras import ops


class GatedDense(keras.layers.Layer):
    """relu(x W + b) times a gate sigmoid(x G): (batch, n) -> (batch, units)."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(shape=shape, name="kernel")
        self.gate = self.add_weight(shape=shape, name="gate")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        return ops.relu(ops.matmul(inputs, self.kernel) + self.bias) * ops.sigmoid(
            ops.matmul(inputs, self.gate)
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class FocalLoss(keras.losses.Loss):
    """Cross-entropy that counts a sample the less, the surer the model is of its label."""

    def __init__(self, gamma: float = 2.0, name: str = "focal_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Labels (batch,) integer, probabilities (batch, classes) -> (batch,)."""
        labels = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), y_pred.shape[-1])
        sure = ops.clip(ops.sum(labels * y_pred, axis=-1), 1e-7, 1.0)
        return -ops.power(1.0 - sure, self.gamma) * ops.log(sure)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}


class WorstRecall(keras.metrics.Metric):
    """The recall of the class that is found least often, in [0, 1]; classes never seen are left out."""

    def __init__(self, classes: int = 10, name: str = "worst_recall", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.classes = classes
        self.hits = self.add_variable((classes,), initializer="zeros", name="hits")
        self.seen = self.add_variable((classes,), initializer="zeros", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Labels (batch,) integer, probabilities (batch, classes), weights (batch,) or None."""
        target = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        labels = ops.one_hot(target, self.classes, dtype=self.dtype)
        if sample_weight is not None:
            labels *= ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))
        found = ops.cast(ops.equal(ops.argmax(y_pred, axis=-1), target), self.dtype)
        self.hits.assign_add(ops.sum(labels * found[:, None], axis=0))
        self.seen.assign_add(ops.sum(labels, axis=0))

    def result(self) -> Any:
        recall = self.hits / ops.maximum(self.seen, 1e-7)
        return ops.min(ops.where(self.seen > 0, recall, 1.0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes}


class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to `peak` over `warmup` steps, then falls with the square root of the step."""

    def __init__(self, peak: float, warmup: int) -> None:
        super().__init__()
        self.peak, self.warmup = peak, warmup

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32") + 1.0
        return self.peak * ops.minimum(step / self.warmup, ops.sqrt(self.warmup / step))

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup": self.warmup}


def gated_mlp(units: int = 48, dropout: float = 0.2, classes: int = 10) -> Any:
    """(batch, 8, 8, 1) float32 -> (batch, classes) probabilities."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Flatten(name="flatten")(inputs)
    x = GatedDense(units, name="gated1")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = GatedDense(units, name="gated2")(x)
    outputs = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="digit")(x)
    return keras.Model(inputs, outputs, name="gated_mlp")
