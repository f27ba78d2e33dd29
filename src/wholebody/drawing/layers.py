"""Drawings put together and laid over a photo, with numba: only the pixels that a drawing covers are touched."""

from __future__ import annotations

import numpy as np

from wholebody.drawing.compiled import compiled


@compiled()
def add_drawing(layer, nearest, left, top, rgba, depth, focal, edge, outline):
    """One more drawing into `layer` (H, W, 4), colour multiplied by alpha, in place; its corner is at (left, top).

    rgba (h, w, 4) as of `raster.Drawing`; of its colour, `outline` (0..1) stays where `edge` (h, w) is 1. Depth (h, w)
    over the focal length is what compares between cameras: `nearest` (H, W) has the least so far, inf where nobody is.
    """
    for y in range(rgba.shape[0]):
        for x in range(rgba.shape[1]):
            alpha = rgba[y, x, 3]
            if alpha == 0:
                continue
            shade = alpha * (np.float32(1) - (np.float32(1) - outline) * edge[y, x])
            far, row, column = depth[y, x] / focal, top + y, left + x
            mine, theirs = np.float32(1), np.float32(1) - alpha
            if far < nearest[row, column]:
                nearest[row, column] = far
            else:
                mine, theirs = np.float32(1) - layer[row, column, 3], np.float32(1)
            for channel in range(3):
                color = mine * shade * rgba[y, x, channel]
                layer[row, column, channel] = color + theirs * layer[row, column, channel]
            layer[row, column, 3] = mine * alpha + theirs * layer[row, column, 3]


@compiled()
def lay(photo, layer, left, top, opacity):
    """`layer` (h, w, 4), colour 0..1 multiplied by alpha, over `photo` (H, W, 3) uint8 in place, its corner at
    (left, top)."""
    for y in range(layer.shape[0]):
        for x in range(layer.shape[1]):
            alpha = layer[y, x, 3] * opacity
            if alpha == 0:
                continue
            for channel in range(3):
                under = photo[top + y, left + x, channel]
                color = under * (np.float32(1) - alpha) + layer[y, x, channel] * (255 * opacity) + np.float32(0.5)
                photo[top + y, left + x, channel] = np.uint8(min(max(color, np.float32(0)), np.float32(255)))
