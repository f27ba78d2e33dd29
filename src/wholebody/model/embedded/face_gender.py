"""Whether a face looks like a man's or a woman's: what no proportion of a body tells, and its shape depends on.

The network is HSE-FaceRes (Apache-2.0): MobileNet v1 that learnt to tell people apart, and from that men from women.
Its card is `weights/face_gender.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from wholebody.model.embedded.face_landmarks import FaceLook
from wholebody.model.embedded.regions import cut
from wholebody.model.embedded.tflite import read_weights
from wholebody.model.embedded.trunk import ConvUnit

FILE = "face_gender.safetensors"
SIDE = 224
_MEAN_RGB = (123.68, 116.779, 103.939)  # of ImageNet, in 0..255
_CLOSE = 0.8  # of the landmarks' region: as near as the boxes of faces that it learnt from
_LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Channels and stride of MobileNet v1's separable layers."""


class FaceGender(nn.Module):
    """`FaceGender()(faces)`: see `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvUnit(3, 32, 3, 2)
        layers, channels = [], 32
        for out, stride in _LAYERS:
            layers += [ConvUnit(channels, channels, 3, stride, groups=channels), ConvUnit(channels, out)]
            channels = out
        self.layers = nn.Sequential(*layers)
        self.features = nn.Linear(channels, 256)
        self.male = nn.Linear(256, 1)

    def forward(self, faces: Tensor) -> Tensor:
        """faces N×3×224×224, RGB in 0..255, upright → (N,) from 0, a woman's, to 1, a man's."""
        blue_first = faces.flip(1) - faces.new_tensor(_MEAN_RGB[::-1])[:, None, None]
        x = self.layers(self.stem(blue_first.contiguous(memory_format=torch.channels_last)))
        return self.male(self.features(x.mean((2, 3))).relu()).sigmoid()[:, 0]

    def look(self, image: np.ndarray, faces: Sequence[FaceLook]) -> np.ndarray:
        """(N,) the same of faces (N > 0) of a picture H×W×3 uint8 RGB."""
        crops = np.stack([cut(image, face.next_region * [1, 1, _CLOSE, 1], SIDE) for face in faces])
        with torch.inference_mode():
            return self(torch.from_numpy(crops).permute(0, 3, 1, 2)).numpy()  # type: ignore[no-any-return]


def load_face_gender() -> FaceGender:
    """The embedded network, in eval mode; it never learns."""
    from safetensors.torch import load

    network = FaceGender()
    network.load_state_dict(load(read_weights(FILE)))
    return network.eval().requires_grad_(False)
