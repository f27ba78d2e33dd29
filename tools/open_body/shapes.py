"""Ten components of shape."""

from dataclasses import dataclass

import numpy as np

COMPONENTS = 10


@dataclass(frozen=True)
class ShapeSpace:
    mean: np.ndarray  # V,3
    dirs: np.ndarray  # V,3,10: metres per standard deviation

    def betas(self, vertices: np.ndarray) -> np.ndarray:
        """Coefficients (N,10) of people (N,V,3)."""
        flat = self.dirs.reshape(-1, COMPONENTS)
        return (vertices - self.mean).reshape(len(vertices), -1) @ flat / (flat**2).sum(0)

    def vertices(self, betas: np.ndarray) -> np.ndarray:
        return self.mean + np.einsum("nk,vck->nvc", betas, self.dirs, optimize=True)


def fit(vertices: np.ndarray) -> ShapeSpace:
    """Principal components of people in the T-pose (N,V,3). A positive coefficient makes the body larger."""
    mean = vertices.mean(0, dtype=np.float64)
    away = (vertices - mean).reshape(len(vertices), -1)
    energy, basis = np.linalg.eigh(away @ away.T)
    dirs = (basis[:, ::-1][:, :COMPONENTS].T @ away) / np.sqrt(len(vertices) - 1)
    dirs = dirs.reshape(COMPONENTS, -1, 3)
    dirs *= np.where((dirs * mean).sum((1, 2)) < 0, -1, 1)[:, None, None]
    return ShapeSpace(mean, dirs.transpose(1, 2, 0))
