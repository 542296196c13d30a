"""Models and data for the shipped configurations; ordinary user code, which nothing in the package imports."""
