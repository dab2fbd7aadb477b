"""Data for the experiments, not in the `svdrot` wheel: `shapes` are generated, `planes` are read from disk.

The file must exist: a folder without `__init__.py` loses to an installed package of the same name.
"""
