"""A work without a network: a row with the mean of each picture; some pictures crash it, as pictures do."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wholebody.errors import BadInput
from wholebody.files.image import decode_image
from wholebody.files.storage import read_any
from wholebody.scale.shard import Answer, Request


@dataclass(frozen=True)
class Pretend:
    """`log`: a folder; each opened work leaves a file there, named by its process. `pause`: seconds a picture."""

    log: str
    pause: float = 0.0
    chunk: int = 8

    def schema(self) -> Any:
        import pyarrow as pa

        return pa.schema([
            ("shard", pa.int32()), ("row", pa.int32()), ("source", pa.string()), ("content_sha256", pa.string()),
            ("mean", pa.float32()), ("boxes", pa.int32()), ("together", pa.int32()),
        ])  # fmt: skip

    def open(self) -> Any:
        import pyarrow  # noqa: F401

        Path(self.log).mkdir(parents=True, exist_ok=True)
        (Path(self.log) / f"open-{os.getpid()}").touch()
        return self.answer

    def answer(self, asked: Sequence[Request] | None) -> Any:
        if asked is None:
            return {"made_by": "a test"}
        return [self._one(request, len(asked)) for request in asked]

    def _one(self, request: Request, together: int) -> Answer:
        import pyarrow as pa

        time.sleep(self.pause)
        name = request.source.rpartition("/")[2]
        if "poison" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hungry" in name:
            eaten = [b"x" * (1 << 20) for _ in range(400)]
            time.sleep(60 if eaten else 0)  # until somebody looks
        if "endless" in name:
            time.sleep(3600)
        once = Path(self.log) / f"crashed-{name}"
        if "unlucky" in name and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if request.kind == "film":
            place = Path(request.scratch) / "motion"
            place.write_bytes(b"motion of " + name.encode())
            return Answer("ok", count=1, files={f"motions/{request.shard:06d}-{name}.parquet": place})
        try:
            if request.place is not None:
                with open(request.place[0], "rb") as file:
                    file.seek(request.place[1])
                    data = file.read(request.place[2])
            else:
                data = read_any(request.source)
            image = decode_image(data, request.source, [])
        except BadInput as error:
            return Answer("bad", str(error))
        content = hashlib.sha256(data).hexdigest()
        batch = pa.record_batch({
            "mean": pa.array([float(image.mean())], pa.float32()),
            "boxes": pa.array([-1 if request.boxes is None else len(request.boxes)], pa.int32()),
            "together": pa.array([together], pa.int32()),
        })  # fmt: skip
        return Answer(
            "ok", people=batch, count=1, width=image.shape[1], height=image.shape[0], content=content,
            overlay=data if request.overlay else b"",
        )  # fmt: skip


def picture(number: int = 0, side: int = 24) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def pictures(folder: Path, count: int, start: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.png" for number in range(start, start + count)]
    for number, path in enumerate(paths, start):
        path.write_bytes(picture(number))
    return paths


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def results(out: Path) -> dict[str, bytes]:
    """All that a job's results are; the plan's name is by chance, and the lock is not a result."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.parent.name != "plan" and path.name not in (".driver.lock", "plan.json", "job.json")
    }


def sources(out: Path, table: str = "pictures") -> list[str]:
    import pyarrow.parquet as pq

    rows = [row for path in sorted((out / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return [row["source"] for row in rows]


def rows(out: Path, table: str = "people") -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [row for path in sorted((out / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


