"""Experiments on the polar factor by matrix products, and on what optimizers make of it."""
