"""Visible accelerators -> one strategy: none, one GPU, or all GPUs of the machine."""

from __future__ import annotations

import functools
import subprocess
from dataclasses import dataclass

import tensorflow as tf

from resume.errors import UsageError


@dataclass(frozen=True)
class Devices:
    strategy: tf.distribute.Strategy
    description: str  # one line for people


def discover() -> None:
    """Let TensorFlow look for accelerators; what it has to say about that, it says now."""
    tf.config.list_physical_devices()


def choose(kind: str = "auto", *, logical_cpus: int | None = None, memory_growth: bool = True) -> Devices:
    """The strategy under which the model is built, restored and trained. Call before TensorFlow touches a device.

    `kind`: "auto" takes every visible GPU, else the CPU; "cpu" ignores GPUs. `logical_cpus`: split the CPU into that
    many devices and mirror over them. Raises UsageError when it comes too late for that.
    """
    gpus = tf.config.list_physical_devices("GPU") if kind == "auto" else []
    try:
        if kind == "cpu":
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, memory_growth)
        if logical_cpus:
            split = [tf.config.LogicalDeviceConfiguration()] * logical_cpus
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], split)
    except RuntimeError as error:
        raise UsageError(
            f"devices: TensorFlow was already in use before they could be set ({error})."
        ) from None
    if len(gpus) > 1:
        return Devices(tf.distribute.MirroredStrategy(), f"{len(gpus)} GPUs, mirrored: {_model(gpus[0])}")
    if gpus:
        return Devices(tf.distribute.get_strategy(), f"one GPU: {_model(gpus[0])}")
    if logical_cpus and logical_cpus > 1:
        names = [f"/CPU:{index}" for index in range(logical_cpus)]
        return Devices(tf.distribute.MirroredStrategy(names), f"{logical_cpus} logical CPU devices, mirrored")
    return Devices(tf.distribute.get_strategy(), "CPU")


def free_memory() -> int | None:
    """Bytes that every visible GPU has beyond what TensorFlow has used of it at most so far; None without a GPU.

    0 where nobody tells how much there is.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        return None
    names = [gpu.name.rpartition("device:")[2] for gpu in gpus]
    used = max(int(tf.config.experimental.get_memory_info(name)["peak"]) for name in names)
    return max(_total_memory() - used, 0)


@functools.cache
def _total_memory() -> int:
    """Of the smallest GPU, by the driver's own tool."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(int(line) for line in told.split()) << 20
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def _model(gpu: tf.config.PhysicalDevice) -> str:
    return str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
