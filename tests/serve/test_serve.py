"""The web server: uploads, queue, limits, deletion, what is never shown; then clicked through in a real browser."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser import chromium
from pretend import make_work

from wholebody.errors import BadInput
from wholebody.serve.app import make_app
from wholebody.serve.config import ServeConfig
from wholebody.serve.jobs import Jobs, harmless_name

DEMO = Path(__file__).parents[2] / "demo"


@dataclass
class Server:
    address: str
    folder: Path
    jobs: Jobs

    def ask(self, path: str, data: bytes | None = None, method: str | None = None, **headers: str):
        """(status, headers, body)"""
        request = urllib.request.Request(self.address + path, data, method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def send(self, name: str, data: bytes = b"content", **headers: str) -> str:
        status, _, body = self.ask("jobs", data, X_File_Name=name, **headers)
        assert status == 202, body
        return json.loads(body)["job"]

    def about(self, key: str) -> dict:
        return json.loads(self.ask(f"jobs/{key}")[2])

    def wait(self, key: str, *states: str) -> dict:
        for _ in range(600):
            about = self.about(key)
            if about.get("state") in (states or ("done", "failed")):
                return about
            time.sleep(0.05)
        raise AssertionError(about)


@contextlib.contextmanager
def serving(folder: Path, work=make_work, **options) -> Iterator[Server]:
    import uvicorn

    config = ServeConfig(**options)
    jobs = Jobs(folder, config, work)
    server = uvicorn.Server(uvicorn.Config(make_app(jobs, config), "127.0.0.1", 0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Server(f"http://127.0.0.1:{port}{config.prefix}/", folder, jobs)
    finally:
        jobs.close()
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as one:
        yield one


def test_a_job_from_upload_to_download(server):
    key = server.send("My%20clip%20(1).MP4", b"12345", X_Look="mannequin")
    about = server.wait(key)
    assert about["state"] == "done" and about["minutes_left"] == 60
    assert [file["name"] for file in about["files"]] == ["My_clip_1.html", "My_clip_1_person0.npz"]
    status, headers, body = server.ask(f"jobs/{key}/My_clip_1.html")
    assert (status, body) == (200, b"<p>mannequin 5</p>")
    assert "sandbox allow-scripts" in headers["content-security-policy"]
    assert headers["content-disposition"].startswith("inline")
    _, headers, body = server.ask(f"jobs/{key}/My_clip_1_person0.npz")
    assert body == b"npz" and headers["content-disposition"].startswith("attachment")
    assert [path.name for path in server.folder.rglob("*") if path.is_file()].count("My_clip_1.mp4") == 0


def test_no_path_of_the_server_is_shown_or_reached(server):
    done, refused, defect = (server.send(f"{name}.jpg") for name in ("fine", "refused", "defect"))
    for key in (done, refused, defect):
        text = json.dumps(server.wait(key))
        assert str(server.folder) not in text and "/" not in json.loads(text)["message"]
    assert server.about(refused)["message"] == "refused.jpg: is no picture, and x neither."
    for path in (
        f"jobs/{done}/..%2f..%2f..%2fetc%2fpasswd", f"jobs/{done}/%2Fetc%2Fpasswd", "../../etc/passwd",
        f"jobs/{done}/results/fine.html", "jobs/", "page.html", f"jobs/{done}/fine.jpg", f"jobs/{refused}/fine.html",
    ):  # fmt: skip
        assert server.ask(path)[0] in (404, 405), path
    assert server.ask("jobs/" + "x" * 24)[0] == 404


def test_two_users_do_not_see_each_other(server):
    one, other = server.send("a.jpg"), server.send("a.jpg", b"longer content")
    assert one != other and len(one) >= 24
    server.wait(one), server.wait(other)
    assert server.ask(f"jobs/{one}/a.html")[2] == b"<p>clothed 7</p>"
    assert server.ask(f"jobs/{other}/a.html")[2] == b"<p>clothed 14</p>"


def test_queue_progress_and_stopping(server):
    slow, after = server.send("slow.mp4"), server.send("b.jpg")
    for _ in range(200):
        about = server.about(slow)
        if about["done"] > 2:
            break
        time.sleep(0.05)
    assert about["state"] == "working" and about["of"] == 100
    waiting = server.about(after)
    assert (waiting["state"], waiting["before"]) == ("waiting", 1)
    assert server.ask(f"jobs/{slow}", method="DELETE", X_File_Name="none")[0] == 204
    assert server.wait(after)["state"] == "done"  # by a new worker: the old one was ended
    assert server.ask(f"jobs/{slow}")[0] == 404
    time.sleep(0.2)
    assert len(list(server.folder.iterdir())) == 1


def test_a_worker_that_dies_costs_its_job_only(server):
    crash, after = server.send("crash.jpg"), server.send("b.jpg")
    assert "damaged" in server.wait(crash)["message"]
    assert server.wait(after)["state"] == "done"


def test_limits(tmp_path):
    with serving(tmp_path, max_mb=1, max_waiting=2, job_minutes=0.02) as server:
        # Also where the upload is still on its way when the answer is known.
        for size in (1_000_001, 40_000_000):
            status, _, body = server.ask("jobs", b"x" * size, X_File_Name="a.jpg")
            assert status == 413 and b"1 MB" in body
        unsized = (b"x" * 100_000 for _ in range(400))
        assert server.ask("jobs", unsized, X_File_Name="a.jpg")[0] == 413
        assert server.ask("jobs", b"x" * 40_000_000)[0] == 400
        assert server.ask("jobs", b"", X_File_Name="a.jpg")[0] == 400
        assert server.ask("jobs", b"x")[0] == 400  # as another site's form would send it
        assert server.ask("jobs", b"x", X_File_Name="a.jpg", X_Look="nude")[0] == 400
        slow = server.send("slow.mp4")
        server.wait(slow, "working")
        server.send("a.jpg"), server.send("b.jpg")
        status, _, body = server.ask("jobs", b"x", X_File_Name="c.jpg")
        assert status == 503 and b"Try again" in body
        assert "longer than" in server.wait(slow)["message"]
    assert all(not path.name.startswith("a.jpg") for path in tmp_path.rglob("*") if path.is_file())


def test_results_are_deleted_after_a_time(tmp_path):
    with serving(tmp_path, keep_minutes=1 / 60) as server:
        key = server.send("a.jpg")
        assert server.wait(key)["state"] == "done"
        for _ in range(100):
            if server.ask(f"jobs/{key}")[0] == 404:
                break
            time.sleep(0.1)
        assert list(tmp_path.iterdir()) == []


def test_below_a_path(tmp_path):
    with serving(tmp_path, path="/people/3d/") as server:
        assert server.address.endswith("/people/3d/")
        status, _, page = server.ask("")
        assert status == 200 and b'"jobs"' in page and b'"/' not in page  # only relative addresses
        key = server.send("a.jpg")
        assert server.wait(key)["state"] == "done" and server.ask(f"jobs/{key}/a.html")[0] == 200
        with pytest.raises(AssertionError):
            server.address = server.address.replace("people/3d/", "")
            server.send("a.jpg")


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        ("clip.mp4", "clip.mp4"), ("../../etc/passwd", "passwd"), ("C:\\x\\a b.JPG", "a_b.jpg"), ("<b>.html", "b.html"),
        ("", "upload"), (".mp4", "upload.mp4"), ("a" * 300 + ".mov", "a" * 60 + ".mov"),
        ("\u5199\u771f.jpg", "\u5199\u771f.jpg"), ("x\n;rm -rf.p;s", "x_rm_-rf.ps"),
    ],
)  # fmt: skip
def test_names_become_harmless(name, harmless):
    assert harmless_name(name) == harmless


def test_options_are_checked():
    for wrong in ({"max_mb": 0}, {"port": 70000}, {"path": "bodies"}, {"keep_minutes": -1}):
        with pytest.raises(BadInput, match=str(next(iter(wrong.values())))):
            ServeConfig(**wrong)


@pytest.mark.slow
def test_clicked_through_in_a_browser(tmp_path):
    """The real thing below a path: a photo and a film dropped, figures seen, files downloaded, all deleted."""
    from functools import partial

    from wholebody.pipeline.config import PredictConfig
    from wholebody.pipeline.single import Single

    work = partial(Single, PredictConfig(inputs=(), out=Path(".")), 60.0)
    with serving(tmp_path, work, path="/bodies") as server, chromium() as (page, requests, problems):
        page.goto(server.address)
        with page.expect_file_chooser() as chooser:
            page.click("#choose")
        chooser.value.set_files(DEMO / "astronaut.jpg")
        page.wait_for_selector("#result:not([hidden])", timeout=300_000)
        figures = page.frame_locator("#figures")
        figures.locator('body[data-ready="yes"]').wait_for(timeout=60_000)
        page.screenshot(path=tmp_path.parent / "serve.png")
        with page.expect_download() as download:
            page.click("a.file:has-text('glTF')")
        assert Path(download.value.path()).read_bytes()[:4] == b"glTF"
        assert page.url.startswith(f"{server.address}#")
        page.reload()
        page.wait_for_selector("#result:not([hidden])", timeout=20_000)
        page.click("#delete")
        page.wait_for_selector("#drop:not([hidden])")
        page.wait_for_timeout(1000)
        assert list(tmp_path.iterdir()) == []
        page.set_input_files("#file", DEMO / "film.mp4")
        page.wait_for_selector("#result:not([hidden])", timeout=600_000)
        figures.locator('body[data-ready="yes"]').wait_for(timeout=60_000)
        page.screenshot(path=tmp_path.parent / "serve_film.png")
        offered = " ".join(page.locator("a.file").all_text_contents())
        assert all(name in offered for name in ("glTF", "BVH")), offered
        with page.expect_download() as download:
            page.locator("a.file:has-text('BVH')").first.click()
        assert Path(download.value.path()).read_bytes().startswith(b"HIERARCHY")
        page.click("#delete")
        page.wait_for_selector("#drop:not([hidden])")
        (tmp_path.parent / "no.jpg").write_bytes(b"no picture")
        page.set_input_files("#file", tmp_path.parent / "no.jpg")
        page.wait_for_selector("#bad:not(:empty)", timeout=60_000)
        assert "no.jpg" in page.text_content("#bad") and str(tmp_path) not in page.text_content("#bad")
    assert all(url.startswith((server.address, "blob:", "data:")) for url in requests)
    assert problems == []
