"""Products of matrices 3x3 with each other and with vectors."""

from svdrot.engine.maps import formula


@formula({"a": (3, 3), "b": (3, 3)}, (3, 3), guarded=False)
def product(a, b):
    return a @ b


@formula({"matrix": (3, 3), "vector": (3,)}, (3,), guarded=False)
def image(matrix, vector):
    return matrix @ vector
