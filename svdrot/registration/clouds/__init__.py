"""Alignment of clouds whose partners must be found; `svdrot.registration` is the face."""
