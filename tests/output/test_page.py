"""The page: its data against the body layer, and the page itself in a real browser."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import re

import av
import cv2
import numpy as np
import pytest
from browser import chromium
from made_up_scene import IMAGE_WH, made_up_scene, photo_scene
from test_overlay_film import write_source

from wholebody.body.joints import PARENTS
from wholebody.body.layer import BodyModel
from wholebody.files.video import open_film
from wholebody.output import page as pages
from wholebody.output.film import write_film
from wholebody.output.page import page_bytes, write_page
from wholebody.output.rig import posed_in_camera, scene_rows


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


def element(page: str, name: str) -> str:
    return re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', page, re.S).group(1)


def read(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    page = data.decode()
    about = json.loads(element(page, "about"))
    block = gzip.decompress(base64.b64decode(element(page, "data")))
    return about, {
        name: np.frombuffer(block, "<" + a["kind"], a["count"], a["at"]).reshape(a["shape"])
        for name, a in about["arrays"].items()
    }


def posed(about: dict, arrays: dict[str, np.ndarray], person: int, row: int) -> np.ndarray:
    """(N, 3) in the world as the page's program poses it, from the page's numbers alone."""
    x, y, z, w = np.cumsum(arrays[f"turns{person}"], 1, dtype=np.int16)[:, row].reshape(55, 4).T / 32767.0
    local = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]).transpose(2, 0, 1)  # fmt: skip
    own = about["people"][person]
    rest = arrays[f"rest{person}"].reshape(-1, 3) * own["rest_scale"]
    expression = np.cumsum(arrays[f"expression{person}"], 1, dtype=np.int16)[:, row] * own["expression_scale"]
    moved = arrays["expression_offsets"].astype(float) * arrays["expression_scale"] @ expression
    rest[arrays["expression_vertices"]] += moved
    for joint, vertex, offsets in zip(
        arrays["corrective_joints"], arrays["corrective_vertices"], arrays["corrective_offsets"], strict=True
    ):
        rest[vertex] += (offsets @ (local[joint] - np.eye(3)).ravel()) * arrays["corrective_scale"][joint]
    joints = arrays[f"joints{person}"]
    moves = [np.eye(4)] * 55
    for joint in range(55):
        move = np.eye(4)
        move[:3, :3] = local[joint]
        if joint == 0:
            move[:3, 3] = arrays[f"places{person}"][row]
            moves[0] = move
        else:
            move[:3, 3] = joints[joint] - joints[PARENTS[joint]]
            moves[joint] = moves[PARENTS[joint]] @ move
    skin = np.array(moves)
    skin[:, :3, 3] -= np.einsum("jab,jb->ja", skin[:, :3, :3], joints)
    copies = rest[arrays["split_vertex"]]
    weights = arrays["skin_weights"] / 65535.0
    each = np.einsum("nkab,nb->nka", skin[arrays["skin_joints"], :3, :3], copies) + skin[arrays["skin_joints"], :3, 3]
    return (weights[..., None] * each).sum(1)


def test_the_pages_numbers_pose_our_body(body):
    scene = made_up_scene(body, panning=True)
    about, arrays = read(page_bytes(scene, body))
    for person, motion in enumerate(scene.people):
        (ours,) = [vertices for _, vertices, _ in posed_in_camera(motion, body)]
        path = np.linalg.inv(scene.camera_from_world[scene_rows(motion, scene)])
        assert about["people"][person]["first"] == scene_rows(motion, scene)[0]
        for row in (0, 5):
            world = ours[row] @ path[row, :3, :3].T + path[row, :3, 3]
            off = np.linalg.norm(posed(about, arrays, person, row) - world[arrays["split_vertex"]], axis=1)
            # Four joints a vertex: a few in the armpits have more.
            assert np.median(off) < 0.5e-3 and np.percentile(off, 99) < 2e-3 and off.max() < 12e-3
    assert len(arrays["camera"]) == len(scene.frames)
    np.testing.assert_allclose(arrays["times"], scene.times, atol=1e-6)


def test_a_second_of_motion_is_small(body):
    short, long = (len(page_bytes(made_up_scene(body, n, ((0, n),), seed=5), body)) for n in (25, 75))
    assert long - short < 2 * 25_000 and short < 900_000


def test_of_a_long_film_the_page_has_every_so_manieth_frame(body, monkeypatch):
    scene = made_up_scene(body, 12, ((0, 12), (3, 9), (4, 5)), first=7)
    whole, arrays = read(page_bytes(scene, body))
    monkeypatch.setattr(pages, "MOST_FRAMES", 5)
    about, few = read(page_bytes(scene, body))
    assert about["frames_step"] == 3 and about["frames_first"] == 7 and "every 3rd" in about["notes"][-1]
    np.testing.assert_array_equal(few["times"], arrays["times"][::3])
    assert [(person["first"], person["count"]) for person in about["people"]] == [(0, 4), (1, 2)]
    np.testing.assert_array_equal(few["places1"], arrays["places1"][::3])  # in frames 10 and 13 of the film
    assert whole["people"][1]["first"] == 3


def test_what_is_beside_the_figures(tmp_path, body):
    scene = made_up_scene(body)
    source = write_source(tmp_path / "a.mp4", scene.times.tolist(), (640, 480), sound=True)
    (path,) = write_film(tmp_path, "clip", scene, body, open_film(source), save=("html",))
    page = path.read_text()
    shown = base64.b64decode(element(page, "picture"))
    with av.open(io.BytesIO(shown)) as film:
        times = [float(frame.time) for frame in film.decode(video=0)]
        assert (film.streams.video[0].width, film.streams.video[0].height) == (480, 360)
    np.testing.assert_allclose(times, scene.times, atol=1e-3)
    photo = page_bytes(photo_scene(body), body, picture=np.full((240, 320, 3), 99, np.uint8))
    assert read(photo)[0]["picture"] == "image/jpeg"
    assert cv2.imdecode(np.frombuffer(base64.b64decode(element(photo.decode(), "picture")), np.uint8), 1).mean() == 99


def test_names_are_text_and_nobody_is_fine(body):
    scene = dataclasses.replace(made_up_scene(body, 2, ()), notes=("</script><script>alert(1)</script>",))
    data = page_bytes(scene, body, title="<img src=x> & co")
    assert b"<title>&lt;img src=x&gt; &amp; co</title>" in data
    about, _ = read(data)
    assert about["notes"][0].startswith("</script>") and about["people"] == []
    assert data.count(b"<script>") == 1
    assert not re.search(rb"https?://", data)


@pytest.mark.slow
def test_in_a_browser(tmp_path, body):
    scene = made_up_scene(body, 25, ((0, 25), (10, 20)), amplitude=0.3)
    source = write_source(tmp_path / "a.mp4", scene.times.tolist())
    page_path = write_page(tmp_path / "clip.html", scene, body, film=open_film(source), look="mannequin")
    with chromium() as (page, requests, problems):
        page.goto(page_path.as_uri())
        page.wait_for_selector('body[data-ready="yes"]', timeout=60_000)

        def shot(frame: int, view: str = "world") -> np.ndarray:
            page.select_option("#view", view)
            page.evaluate("f => { const s = document.getElementById('scrub'); s.value = f;"
                          " s.dispatchEvent(new Event('input')) }", frame)  # fmt: skip
            page.wait_for_timeout(700)
            return cv2.imdecode(np.frombuffer(page.locator("canvas").screenshot(), np.uint8), 1).astype(int)

        one, other = shot(2), shot(15)
        assert (np.abs(one - other).max(-1) > 40).mean() > 0.005
        page.mouse.move(800, 300), page.mouse.down(), page.mouse.move(700, 280), page.mouse.up()
        page.wait_for_timeout(500)
        assert (np.abs(shot(15) - other).max(-1) > 40).mean() > 0.005  # the view has turned

        page.click("#showfilm")
        with_people = shot(15, "camera")
        for box in page.locator("#people input").all():
            box.click()
        empty = shot(15, "camera")
        for box in page.locator("#people input").all():
            box.click()
        seen = np.abs(with_people - empty).max(-1) > 60
        assert overlap(seen, silhouette(scene, body, 15, seen.shape)) > 0.95

        page.click("#play")
        page.wait_for_timeout(700)
        assert page.text_content("#clock") != ""
        assert page.text_content("#play") == "Pause"
    outside = [url for url in requests if not url.startswith(("blob:", "data:", page_path.as_uri()))]
    assert (outside, problems) == ([], [])


def silhouette(scene, body, row: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Where our own rasteriser draws the people in a picture of that size, the film's frame fitted into it."""
    from wholebody.drawing.raster import Mesh, draw_meshes

    meshes = []
    for motion in scene.people:
        vertices = np.concatenate([vertices for _, vertices, _ in posed_in_camera(motion, body)])
        meshes.append(Mesh(vertices[list(scene_rows(motion, scene)).index(row)], body.faces.numpy()))
    scale = min(size_hw[1] / IMAGE_WH[0], size_hw[0] / IMAGE_WH[1])
    middle = (scene.camera.principal_px + 0.5 - np.array(IMAGE_WH) / 2) * scale
    principal = middle + np.array(size_hw[::-1]) / 2 - 0.5
    return draw_meshes(meshes, scene.camera.focal_px * scale, principal.tolist(), size_hw).rgba[..., 3] > 0.5


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_names_of_files_cannot_become_part_of_the_page(body, tmp_path):
    """Markup, and bytes that are no text, in a film's name and in its notes."""
    name = "</title><script>alert(1)</script>\udce9\x1b[2J"
    scene = dataclasses.replace(photo_scene(body), notes=(f"{name}: breaks off", "</script><b>"))
    page = page_bytes(scene, body, title=name).decode()
    assert "<script>alert" not in page and "<b>" not in page and "\x1b" not in page
    assert r"&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;\xe9\x1b[2J" in page
    assert json.loads(element(page, "about"))["notes"][:2] == list(scene.notes)
