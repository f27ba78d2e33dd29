"""Results and inputs on object storage, against a local server that speaks S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pretend_work import Pretend, picture, pictures, results, tar

from wholebody.errors import AssetMissing, BadInput, OutputError
from wholebody.files import storage
from wholebody.files.storage import Store, as_address, file_system, is_address, read_any
from wholebody.scale.config import ManyConfig
from wholebody.scale.items import read_inputs
from wholebody.scale.job import run_job

pytest.importorskip("pyarrow")


def test_addresses_and_paths(tmp_path: Path) -> None:
    assert as_address(Path("s3://bucket/a/b")) == "s3://bucket/a/b" and as_address("gs://x") == "gs://x"
    assert as_address(tmp_path) == str(tmp_path) and not is_address("/a:/b")
    (tmp_path / "s3:").mkdir()
    assert as_address(tmp_path / "s3:" / "x") == str(tmp_path / "s3:" / "x")


def test_a_storage_that_nobody_knows() -> None:
    with pytest.raises((BadInput, AssetMissing), match="nowhere"):
        file_system("nowhere://bucket/x")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty bucket, and what leads there in the environment, for child processes too."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    wanted = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    import boto3

    boto3.client("s3").create_bucket(Bucket="people")
    yield "s3://people"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    server.stop()


def put(name: str, content: bytes) -> None:
    system, place = file_system(name)
    system.pipe_file(place, content)


def test_a_store_on_object_storage(bucket: str) -> None:
    store = Store(f"{bucket}/store/")
    assert not store.exists("a/x") and store.list("a") == []
    store.write("a/x", b"1")
    assert store.create("a/y", b"2") and not store.create("a/y", b"3") and store.read("a/y") == b"2"
    store.write("a/deep/z", b"4")
    assert {"x", "y"} <= set(store.list("a"))
    store.remove("a/x")
    store.remove("a/x")
    assert not store.exists("a/x")
    with pytest.raises(BadInput, match="no such object"):
        read_any(f"{bucket}/store/a/x")


def test_inputs_on_object_storage(bucket: str, tmp_path: Path) -> None:
    for number in range(3):
        put(f"{bucket}/in/sub/{number}.png", picture(number))
    put(f"{bucket}/in/list.txt", b"sub/1.png\nsub/2.png\n")
    assert [i.source for i in read_inputs([f"{bucket}/in"])] == [f"{bucket}/in/sub/{k}.png" for k in range(3)]
    assert [i.source for i in read_inputs([f"{bucket}/in/list.txt"])] == [f"{bucket}/in/sub/{k}.png" for k in (1, 2)]
    assert [i.source for i in read_inputs([f"{bucket}/in/sub/*.png"])] == [f"{bucket}/in/sub/{k}.png" for k in range(3)]
    for wrong in ("in/nothing", "in/no.png", "in/*.jpg"):
        with pytest.raises(BadInput, match=wrong.rpartition("/")[2].replace("*", r"\*")):
            list(read_inputs([f"{bucket}/{wrong}"]))


def many(**more: Any) -> ManyConfig:
    return ManyConfig(engine="local", worker_count=1, shard_size=3, contact_every=4, **more)


def test_a_job_from_a_bucket_to_a_bucket(bucket: str, tmp_path: Path) -> None:
    """The same tables as from files to files; the same command finds all done."""
    pictures(tmp_path / "in", 5)
    for number in range(5):
        put(f"{bucket}/job/{number:05d}.png", picture(number))
    content = tar(tmp_path / "in" / "x.tar", {f"{k}.png": picture(9 + k) for k in range(4)}).read_bytes()
    put(f"{bucket}/job/x.tar", content)
    work = Pretend(str(tmp_path / "log"))
    there = run_job([f"{bucket}/job"], f"{bucket}/out", work, {}, many(), print)
    here = run_job([str(tmp_path / "in")], str(tmp_path / "out"), work, {}, many(), print)
    assert (there.pictures, there.people, there.bad) == (here.pictures, here.people, here.bad) == (9, 9, 0)
    store = Store(f"{bucket}/out")
    local = results(tmp_path / "out")
    assert {name for name in local if "/" in name} == {
        f"{folder}/{name}" for folder in ("people", "pictures", "done", "overlays") for name in store.list(folder)
    }
    import io

    import pyarrow.parquet as pq

    for number in range(there.shards):
        name = f"people/people-{number:06d}.parquet"
        mine, theirs = (pq.read_table(io.BytesIO(data)).drop(["source"]) for data in (local[name], store.read(name)))
        assert mine.equals(theirs)
    again = run_job([f"{bucket}/job"], f"{bucket}/out", work, {}, many(), print)
    assert again.before == there.shards
    with pytest.raises(BadInput, match="another job"):
        run_job([f"{bucket}/job/x.tar"], f"{bucket}/out", work, {}, many(), print)
    store.remove("done/000001.json")
    assert run_job([f"{bucket}/job"], f"{bucket}/out", work, {}, many(), print).before == there.shards - 1
    assert run_job([f"{bucket}/job/x.tar"], f"{bucket}/out", work, {}, many(), print, overwrite=True).pictures == 4


class Denying:
    """A bucket that lets nobody in, as s3fs says it."""

    def __getattr__(self, name: str) -> Any:
        def deny(*args: Any, **kwargs: Any) -> Any:
            if name == "invalidate_cache":
                return None
            raise PermissionError("Access Denied")

        return deny


def test_a_bucket_that_denies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at once, with what to look at; nothing was begun."""
    real = storage.file_system

    def system(address: str) -> tuple[Any, str]:
        return (Denying(), "b/x") if address.startswith("s3://denied") else real(address)

    for module in ("wholebody.files.storage", "wholebody.scale.items"):
        monkeypatch.setattr(f"{module}.file_system", system)
    pictures(tmp_path / "in", 1)
    work = Pretend(str(tmp_path / "log"))
    with pytest.raises(BadInput, match=r"s3://denied/x.*access is denied.*credentials"):
        run_job(["s3://denied/x"], str(tmp_path / "out"), work, {}, many(), print)
    with pytest.raises((BadInput, OutputError), match=r"s3://denied/out.*access is denied.*credentials"):
        run_job([str(tmp_path / "in")], "s3://denied/out", work, {}, many(), print)
    assert not (tmp_path / "log").exists() and not (tmp_path / "out" / "plan.json").exists()


def test_a_denied_object_is_one_bad_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system", lambda address: (Denying(), "b/x"))
    with pytest.raises(BadInput, match="access is denied"):
        read_any("s3://denied/a.png")


def test_storage_that_stumbles_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Flaky:
        def cat_file(self, place: str) -> bytes:
            calls.append(place)
            if len(calls) < 3:
                raise ConnectionError("reset by peer")
            return b"content"

    monkeypatch.setattr(storage, "file_system", lambda address: (Flaky(), "x"))
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    assert read_any("s3://bucket/x") == b"content" and len(calls) == 3
