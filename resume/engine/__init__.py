"""The floor that imports TensorFlow: live objects in, live objects out; everything between is plain values."""
