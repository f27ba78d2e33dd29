"""Folders on this machine and on object storage (`s3://bucket/folder`, `gs://...`; by fsspec) behind one interface.

What is written appears whole or not at all in both: here by a temporary name and a rename (`files.whole`), on object
storage because a put is one step there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from wholebody.errors import AssetMissing, BadInput, OutputError, WholebodyError
from wholebody.files.reading import open_file, read_bytes
from wholebody.files.text import shown
from wholebody.files.whole import cannot_write, whole, write_bytes

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?P<rest>[^/].*|$)", re.S)
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_TRIES = 3
Result = TypeVar("Result")


def is_address(name: str | os.PathLike[str]) -> bool:
    """Whether a name is an address (`s3://...`) and not a path of this machine."""
    return "://" in str(name)


def as_address(name: str | os.PathLike[str]) -> str:
    """A path as text; an address that went through `Path`, which makes `s3:/bucket` of it, as it was."""
    text = os.fspath(name)
    found = _ADDRESS.fullmatch(text)
    return f"{found['scheme']}://{found['rest']}" if found and not os.path.exists(text) else text


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the place in it. Raises AssetMissing where a package is missing."""
    scheme = address.partition("://")[0].lower()
    try:
        import fsspec

        system, place = fsspec.url_to_fs(address)
        return system, str(place)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "fsspec")
        extra = ".[s3]" if package == "s3fs" else package
        raise AssetMissing(
            f"{shown(address)}: reading {scheme}:// needs the package {package} (pip install '{extra}')."
        ) from error
    except ValueError as error:
        raise BadInput(f"{shown(address)}: {error}. Known are paths, and addresses as s3://bucket/folder.") from error
    except Exception as error:  # credentials that cannot be found, a wrong endpoint, ...
        raise BadInput(f"{shown(address)}: {why(error)}") from error


def why(error: BaseException) -> str:
    """What object storage answered, and what to do, in a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    denied = isinstance(error, PermissionError) or type(error).__name__ in ("NoCredentialsError", "ClientError")
    if denied or any(word in text for word in ("AccessDenied", "Access Denied", "Forbidden", "403")):
        return f"access is denied ({text[:200]}). Check the credentials of this machine and the rights of the bucket."
    if isinstance(error, FileNotFoundError) or "NoSuchBucket" in text:
        return f"is not there ({text[:200]})."
    return f"{type(error).__name__}: {text[:200]}"


def _steadily(act: Callable[[], Result]) -> Result:
    """`act`, again where storage stumbles; what will not get better is raised at once."""
    for attempt in range(_TRIES):
        try:
            return act()
        except (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError):
            raise
        except Exception:
            if attempt + 1 == _TRIES:
                raise
            time.sleep(0.5 * 4**attempt)
    raise AssertionError


def read_any(name: str) -> bytes:
    """The content of a file or object. Raises BadInput."""
    if not is_address(name):
        return read_bytes(name)
    system, place = file_system(name)
    try:
        return bytes(_steadily(lambda: system.cat_file(place)))
    except FileNotFoundError as error:
        raise BadInput(f"could not read {shown(name)}: no such object.") from error
    except Exception as error:
        raise BadInput(f"could not read {shown(name)}: {why(error)}") from error


@contextlib.contextmanager
def open_any(name: str) -> Iterator[IO[bytes]]:
    """A file or object, open to read; an object is read in blocks as it is asked for. Raises BadInput."""
    if not is_address(name):
        with open_file(name) as file:
            yield file
        return
    system, place = file_system(name)
    try:
        file = _steadily(lambda: system.open(place, "rb"))
    except Exception as error:
        raise BadInput(f"could not read {shown(name)}: {why(error)}") from error
    with file:
        yield file


def fetch(name: str, folder: Path) -> Path:
    """A file of this machine with that content: itself, or a copy in `folder`. Raises BadInput."""
    if not is_address(name):
        return Path(name)
    system, place = file_system(name)
    target = folder / re.sub(r"[^A-Za-z0-9._-]", "_", name.rpartition("/")[2])[-100:]
    try:
        _steadily(lambda: system.get_file(place, str(target)))
    except Exception as error:
        raise BadInput(f"could not read {shown(name)}: {why(error)}") from error
    return target


class Store:
    """A folder that results go to, by path or address. Names in it are relative, with `/` between folders."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = as_address(root).rstrip("/") or "/"
        self.folder = None if is_address(self.root) else Path(os.path.abspath(self.root))
        """Where it is on this machine; None: it is on object storage."""
        if self.folder is not None:
            self.root = str(self.folder)

    def __str__(self) -> str:
        return self.root

    def place(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _remote(self, name: str = "") -> tuple[Any, str]:
        return file_system(self.place(name) if name else self.root)

    def exists(self, name: str) -> bool:
        if self.folder is not None:
            return os.path.lexists(self.folder / name)
        system, place = self._remote(name)
        try:
            return bool(_steadily(lambda: system.exists(place)))
        except Exception as error:
            raise self._denied(name, error, BadInput) from error

    def read(self, name: str) -> bytes:
        return read_any(self.place(name))

    def list(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; none where there is no such folder."""
        if self.folder is not None:
            try:
                with os.scandir(self.folder / folder) as entries:
                    return sorted(entry.name for entry in entries if not entry.name.startswith("."))
            except FileNotFoundError:
                return []
            except OSError as error:
                raise BadInput(f"{self.place(folder)}: {error.strerror or error}.") from error
        system, place = self._remote(folder)
        system.invalidate_cache(place)
        try:
            found = _steadily(lambda: system.ls(place, detail=False))
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._denied(folder, error, BadInput) from error
        names = (str(one).rstrip("/").rpartition("/")[2] for one in found if str(one).rstrip("/") != place.rstrip("/"))
        return sorted(name for name in names if name)

    def write(self, name: str, content: bytes) -> None:
        """Raises OutputError."""
        if self.folder is not None:
            write_bytes(self.folder / name, content)
            return
        system, place = self._remote(name)
        try:
            _steadily(lambda: system.pipe_file(place, content))
        except Exception as error:
            raise self._denied(name, error, OutputError) from error

    def write_file(self, name: str, path: Path) -> None:
        """Put a file of this machine there. Raises OutputError."""
        if self.folder is not None:
            with whole(self.folder / name) as part:
                shutil.copyfile(path, part)
            return
        system, place = self._remote(name)
        try:
            _steadily(lambda: system.put_file(str(path), place))
        except Exception as error:
            raise self._denied(name, error, OutputError) from error

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that is not there yet; False, and nothing is written, if it is. Of several that try at the same
        time one succeeds."""
        if self.folder is not None:
            return self._create_here(self.folder / name, content)
        system, place = self._remote(name)
        try:
            if self.exists(name):
                return False
            try:
                system.pipe_file(place, content, mode="create")
            except (TypeError, NotImplementedError):  # a storage without exclusive puts
                system.pipe_file(place, content)
            return True
        except FileExistsError:
            return False
        except WholebodyError:
            raise
        except Exception as error:
            if "PreconditionFailed" in str(error) or "412" in str(error):
                return False
            raise self._denied(name, error, OutputError) from error

    @staticmethod
    def _create_here(path: Path, content: bytes) -> bool:
        if os.path.lexists(path):
            return False
        try:
            new = write_bytes(path.with_name(f"{path.name}.{os.getpid()}.new"), content)
            try:
                os.link(new, path)
            finally:
                new.unlink()
        except FileExistsError:
            return False
        except OSError as error:
            raise cannot_write(path, error) from error
        return True

    def remove(self, name: str) -> None:
        """Take a file away; nothing happens where there is none."""
        if self.folder is not None:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).unlink()
            return
        system, place = self._remote(name)
        with contextlib.suppress(FileNotFoundError):
            try:
                system.rm_file(place)
            except FileNotFoundError:
                raise
            except Exception as error:
                raise self._denied(name, error, OutputError) from error

    def _denied(self, name: str, error: Exception, kind: type[WholebodyError]) -> WholebodyError:
        verb = "cannot write" if kind is OutputError else "could not read"
        return kind(f"{verb} {shown(self.place(name))}: {why(error)}")
