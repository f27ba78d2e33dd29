"""Whole jobs on files: predict, annotate, info."""
