"""Fitting a body to 2D keypoints: `fit.refine` is what everything else here serves."""
