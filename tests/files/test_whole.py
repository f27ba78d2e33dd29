"""Files appear whole or not at all, through temporary names that nobody can guess or lay a link under."""

import errno
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from wholebody.errors import BadInput, OutputError
from wholebody.files.options import check_same_options, record_options
from wholebody.files.whole import append_line, sweep, whole, write_bytes, write_json, write_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_when_complete(tmp_path):
    target = tmp_path / "deep" / "x.bin"
    target.parent.mkdir()
    target.write_bytes(b"old")
    with whole(target) as part:
        part.write_bytes(b"new")
        assert target.read_bytes() == b"old"
        assert part.parent.stat().st_mode & 0o777 == 0o700
    assert target.read_bytes() == b"new" and names(target.parent) == ["x.bin"]
    assert write_bytes(tmp_path / "a" / "b", b"1") == tmp_path / "a" / "b"


def test_a_file_has_the_mode_of_an_ordinary_one(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_takes_its_place_when_complete(tmp_path):
    def write(folder):
        folder.mkdir()
        (folder / "a").write_text("a")
        assert not (tmp_path / "set").exists()

    write_whole(tmp_path / "set", write)
    assert names(tmp_path) == ["set"] and names(tmp_path / "set") == ["a"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, OSError])
def test_a_failure_changes_nothing(tmp_path, failure):
    target = write_bytes(tmp_path / "x", b"old")
    with pytest.raises(OutputError if failure is OSError else failure):
        with whole(target) as part:
            part.write_bytes(b"half")
            raise failure("no")
    assert target.read_bytes() == b"old" and names(tmp_path) == ["x"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write .*x"):
        write_whole(tmp_path / "x", lambda part: None)
    assert names(tmp_path) == []


def test_a_link_is_replaced_and_never_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "x").symlink_to(victim)
    (tmp_path / "absent").symlink_to(tmp_path / "made")
    write_bytes(tmp_path / "x", b"new")
    write_bytes(tmp_path / "absent", b"new")
    assert victim.read_bytes() == b"precious" and not (tmp_path / "made").exists()
    assert not (tmp_path / "x").is_symlink()


def test_names_that_were_guessable_are_left_alone(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    process = os.getpid()
    for name in (f".x.{process}.part", f".{process}.part.x", f".x.{process}.partial", "x.part", f"x.{process}.part"):
        (tmp_path / name).symlink_to(victim)
    write_bytes(tmp_path / "x", b"new")
    assert victim.read_bytes() == b"precious" and (tmp_path / "x").read_bytes() == b"new"


def test_each_part_has_another_name(tmp_path):
    seen = set()
    for _ in range(20):
        with whole(tmp_path / "x") as part:
            part.write_bytes(b"")
            seen.add(part.parent.name)
    assert len(seen) == 20


def test_a_name_as_long_as_the_file_system_takes(tmp_path):
    write_bytes(tmp_path / ("n" * 255), b"1")
    with pytest.raises(OutputError, match="name too long"):
        write_bytes(tmp_path / ("n" * 256), b"1")
    assert names(tmp_path) == ["n" * 255]


@pytest.mark.parametrize("number, said", [(errno.ENOSPC, "disk is full"), (errno.EROFS, "--out"), (errno.EIO, "--out")])
def test_what_the_disk_says_is_explained(tmp_path, monkeypatch, number, said):
    def fails(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OutputError, match=f"cannot write .*x.*{said}"):
        write_bytes(tmp_path / "x", b"1")
    assert names(tmp_path) == []


def test_something_in_the_way(tmp_path):
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    for target in (tmp_path / "folder", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="in its place"):
            write_bytes(target, b"1")
    with pytest.raises(OutputError):
        write_bytes(tmp_path / "a\0b", b"1")
    assert names(tmp_path) == ["file", "folder"]


# What killed runs leave


KILLED = """
    import os, signal, sys
    from wholebody.files.whole import whole
    with whole(sys.argv[1]) as part:
        part.write_bytes(b"half")
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "x")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_the_next_run_takes_the_part_of_a_killed_one_away(tmp_path, writer):
    assert len(names(tmp_path)) == 1
    sweep(tmp_path)
    assert len(names(tmp_path)) == 1  # its writer lives
    writer.kill()
    writer.wait()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_writing_alone_takes_leftovers_away(tmp_path, writer):
    writer.kill()
    writer.wait()
    script = "import sys; from wholebody.files.whole import write_bytes; write_bytes(sys.argv[1], b'1')"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "y")], check=True)
    assert names(tmp_path) == ["y"]


def test_parts_of_earlier_versions_go_too(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead, alive = int(done.stdout), os.getppid()
    for number in (dead, alive):
        for name in (f".x.{number}.part", f".{number}.part.x", f".x.{number}.partial"):
            (tmp_path / name).write_bytes(b"")
    for name in ("x.part", ".hidden", ".x.part", "film.12.part"):
        (tmp_path / name).write_bytes(b"")
    sweep(tmp_path)
    assert not [name for name in names(tmp_path) if str(dead) in name]
    assert len([name for name in names(tmp_path) if str(alive) in name]) == 3
    assert {"x.part", ".hidden", ".x.part", "film.12.part"} <= set(names(tmp_path))


def test_sweeping_follows_no_link(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".wholebody-{'0' * 16}.part").symlink_to(tmp_path / "kept")
    inner = tmp_path / "out" / f".wholebody-{'1' * 16}.part"
    inner.mkdir()
    (inner / "link").symlink_to(tmp_path / "kept")
    sweep(tmp_path / "out")
    assert names(tmp_path / "kept") == ["file"] and names(tmp_path / "out") == [f".wholebody-{'0' * 16}.part"]


def _hammer(folder, number):
    for k in range(60):
        sweep(folder)
        write_bytes(folder / "x", bytes([number]) * (1000 + k))


def test_two_writers_and_sweepers_disturb_nobody(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_hammer, args=(tmp_path, n)) for n in (1, 2, 3)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        if (tmp_path / "x").exists():
            assert len(set((tmp_path / "x").read_bytes())) == 1  # never half of one and half of another
        time.sleep(0.001)
    assert [worker.exitcode for worker in workers] == [0, 0, 0] and names(tmp_path) == ["x"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_a_file_size_limit_leaves_the_old_file(tmp_path):
    script = """
        import resource, signal, sys
        from wholebody.errors import OutputError
        from wholebody.files.whole import append_line, write_bytes
        write_bytes(sys.argv[1], b"old")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        for write in (lambda: write_bytes(sys.argv[1], b"x" * 1000), lambda: append_line(sys.argv[1], "x" * 1000)):
            try: write()
            except OutputError: print("refused")
    """
    target = tmp_path / "x"
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), target], capture_output=True, text=True)
    assert done.stdout == "refused\nrefused\n", done.stderr
    assert target.read_bytes() == b"old" and names(tmp_path) == ["x"]


# JSON and logs


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_json_has_finite_numbers_only(tmp_path, number):
    with pytest.raises(OutputError, match="x.json.*JSON"):
        write_json(tmp_path / "x.json", {"a": [1.0, {"b": number}]})
    assert names(tmp_path) == []


def test_json_says_any_name(tmp_path):
    write_json(tmp_path / "x.json", ["\udce9\n写真"])
    assert json.loads((tmp_path / "x.json").read_bytes()) == ["\udce9\n写真"]


def test_a_log_grows_by_lines(tmp_path):
    append_line(tmp_path / "log", "one\n")
    append_line(tmp_path / "log", "two \udce9")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo \\udce9\n"
    with pytest.raises(OutputError, match="absent"):
        append_line(tmp_path / "absent" / "log", "x")


# The guard of folders that several runs work on


def test_the_same_options_go_on(tmp_path):
    record = tmp_path / "out" / "run.json"
    options = {"model": "t", "out": tmp_path, "config": {"size": (1, 2), "new": 3}}
    assert not check_same_options(record, options, "Delete it.")
    record_options(record, options)
    assert check_same_options(record, options, "Delete it.")
    more = options | {"later": 1}
    with pytest.raises(BadInput, match="other options .--later None then, 1 now.*Delete it"):
        check_same_options(record, more, "Delete it.")
    assert check_same_options(record, more, "Delete it.", defaults={"later": 1})
    changed = options | {"config": {"size": (1, 5), "new": 3}}
    with pytest.raises(BadInput, match=r"--config.size \[1, 2\] then, \[1, 5\] now"):
        check_same_options(record, changed, "Delete it.")
    nested = options | {"config": {"size": (1, 2), "new": 3, "newer": 4}}
    assert check_same_options(record, nested, "Delete it.", defaults={"config": {"newer": 4, "size": None}})


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_a_record_that_is_no_record_is_refused(tmp_path, content):
    record = tmp_path / "run.json"
    record.write_bytes(content)
    with pytest.raises(BadInput, match="run.json: cannot be read.*Delete it"):
        check_same_options(record, {"a": 1}, "Delete it.")
