"""Embedded TensorFlow Lite networks: loaded when first used, safe to call from several threads, silent."""

from __future__ import annotations

import io
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import numpy as np

from wholebody.errors import AssetMissing

_QUIET = threading.Lock()


class TFLiteNetwork:
    """One network of `wholebody/weights`: `network(inputs)` gives its outputs by name, in the file's order.

    Interpreters are not safe to share, so each call borrows one that is free; there are as many as calls at the same
    time. A copy or a pickle of the network loads its interpreters anew. The outputs do not depend on the threads.
    """

    def __init__(self, file: str, member: str | None = None, threads: int = 1) -> None:
        """file: the name in the weights' folder. member: of a file that is a zip, which of its networks."""
        self.file, self.member, self.threads = file, member, threads
        self._lock = threading.Lock()
        self._free: dict[int, list[Any]] = {}  # by their threads
        self._content: bytes | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "member": self.member, "threads": self.threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __call__(self, inputs: np.ndarray, threads: int | None = None) -> dict[str, np.ndarray]:
        """inputs: as the network takes them, one picture at a time (1×H×W×3); of any size where the network can.
        threads: of this call; default: the network's."""
        threads = threads or self.threads
        with self._lock:
            free = self._free.setdefault(threads, [])
            interpreter = free.pop() if free else None
        if interpreter is None:
            interpreter = load_interpreter(self._read(), threads)
        try:
            entry = interpreter.get_input_details()[0]
            if tuple(entry["shape"]) != inputs.shape:
                interpreter.resize_tensor_input(entry["index"], inputs.shape)
                interpreter.allocate_tensors()
            interpreter.set_tensor(entry["index"], np.asarray(inputs, entry["dtype"]))
            interpreter.invoke()
            return {entry["name"]: interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details()}
        finally:
            with self._lock:
                free.append(interpreter)

    def _read(self) -> bytes:
        with self._lock:
            if self._content is None:
                self._content = read_weights(self.file, self.member)
            return self._content


def read_weights(file: str, member: str | None = None) -> bytes:
    """The bytes of an embedded network."""
    path = files("wholebody") / "weights" / file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AssetMissing(f"the embedded network {file} is missing ({error}); reinstall wholebody") from error
    if member is None:
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(member)


def load_interpreter(content: bytes, threads: int) -> Any:
    """An interpreter with its tensors allocated, for a fixed size of input."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise AssetMissing(
            "The embedded detector and landmarkers need the package ai-edge-litert, which cannot be imported "
            f"({error}). Install it, or do without: boxes by --boxes, landmarkers off by --parts none."
        ) from error
    with _without_notices():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


@contextmanager
def _without_notices() -> Iterator[None]:
    """TensorFlow Lite says on the process's error stream, past Python, that it made its CPU delegate. Nothing else
    that is said meanwhile is lost: it is held back and written afterwards."""
    with _QUIET:
        sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # there is no such stream
            yield
            return
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)  # rather lose a notice than wait for a full pipe
        os.dup2(write, 2)
        os.close(write)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            with os.fdopen(read, "rb") as held:
                said = held.read() or b""
            rest = [line for line in said.splitlines(keepends=True) if b"XNNPACK delegate" not in line]
            if rest:
                os.write(2, b"".join(rest))
