"""Canonical names for the variables of Keras 1 and 2 (standalone Keras, tf.keras, tf_keras), whatever format held them.

One door for the readers of files and for live models, so that both name alike. What the names of those generations
look like, and how they become those of Keras 3, is told in resume.formats.keras2_layers (weights) and in
resume.formats.keras2_optimizers (optimizer variables).
"""

from resume.formats.keras2_layers import Weight, as_keras3, layer_names, trained, weight_names
from resume.formats.keras2_optimizers import configured_rate, optimizer_info, optimizer_names, role
from resume.formats.keras2_orders import Owner

__all__ = [
    "Owner",
    "Weight",
    "as_keras3",
    "configured_rate",
    "layer_names",
    "optimizer_info",
    "optimizer_names",
    "role",
    "trained",
    "weight_names",
]
