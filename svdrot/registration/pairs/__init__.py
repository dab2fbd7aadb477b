"""Alignment of points whose partners are known, all of them or some; `svdrot.registration` is the face."""
