"""Loops that numba compiles: never called as Python. A module has the signatures of its kernels, `KERNELS`,
and the words that they use, its `vocabulary`.
"""
