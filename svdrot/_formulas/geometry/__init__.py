"""Everyday geometry: the algebra of quaternions, directions, angles, and the Lie group SO(3)."""
