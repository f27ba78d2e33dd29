"""Rotations, crops and cameras."""
