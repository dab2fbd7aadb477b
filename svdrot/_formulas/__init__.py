"""Arithmetic on scalars, once: plain functions of arrays of numbers, from which `svdrot.engine` makes
everything."""
