"""The job on films: frames to a scene to files; stopped and gone on with; bad films."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from fake_network import FakeNetwork

from wholebody.errors import BadInput, OutputError
from wholebody.files.image import Source
from wholebody.files.video import Frame, find_films
from wholebody.motion import watch as watching
from wholebody.people.detect import Detections
from wholebody.people.predictor import Predictor
from wholebody.pipeline import film as job
from wholebody.pipeline.config import PredictConfig

WH = (320, 180)
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


def frame_with(places: dict[str, tuple[float, float]], wh: tuple[int, int] = WH) -> np.ndarray:
    """People are upright rectangles of 30×90 pixels."""
    grey = np.random.default_rng(0).integers(70, 150, (wh[1] // 6, wh[0] // 6, 1)).astype(np.uint8)
    image = np.repeat(cv2.resize(grey, wh, interpolation=cv2.INTER_NEAREST)[..., None], 3, 2)
    for name, (x, y) in places.items():
        cv2.rectangle(image, (round(x) - 15, round(y) - 45), (round(x) + 15, round(y) + 45), COLOURS[name], -1)
    return image


class Finder:
    """Finds the rectangles by their colours; counts how often it looked."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.looks, self.stop_after = 0, stop_after

    def __call__(self, image: np.ndarray) -> Detections:
        self.looks += 1
        if self.stop_after is not None and self.looks > self.stop_after:
            raise KeyboardInterrupt
        boxes = []
        for colour in COLOURS.values():
            rows, columns = np.nonzero((np.abs(image.astype(int) - colour) < 60).all(2))
            if len(rows) > 200:
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        return Detections(np.array(boxes, np.float64).reshape(-1, 4), np.full(len(boxes), 0.6))


def write(path: Path, frames: Sequence[np.ndarray], rate: int = 12) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10", "g": "6"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def crossing(count: int = 24) -> list[np.ndarray]:
    return [frame_with({"blue": (280 - 10 * k, 88), "red": (45 + 10 * k, 92)}) for k in range(count)]


@pytest.fixture
def film(tmp_path) -> Path:
    return write(tmp_path / "crossing.mp4", crossing())


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(FakeNetwork(), batch_size=8)


@pytest.fixture
def finder(monkeypatch) -> Finder:
    found = Finder()
    monkeypatch.setattr(job, "make_detector", lambda name, threshold=None: found)
    return found


def config(out: Path, *inputs: Path, **options) -> PredictConfig:
    return PredictConfig(tuple(map(str, inputs)), out=out, **options)


def test_two_who_cross_are_two_people_from_the_first_to_the_last_frame(film, tmp_path, predictor, finder):
    result = job.watch_film(config(tmp_path / "out", film), film, "crossing", predictor)
    scene = result.scene
    assert len(scene.people) == 2 and len(scene.frames) == 24 == result.frames
    assert finder.looks < 24 / 1.8  # it does not look at every frame
    for motion in scene.people:
        way = -1 if motion.box_xyxy[0, 0] > 150 else 1
        assert len(motion.frames) == 24
        assert way * (motion.box_xyxy[-1, 0] - motion.box_xyxy[0, 0]) > 150
        assert way * (motion.transl[-1, 0] - motion.transl[0, 0]) > 0.5
    assert scene.camera.state == "still" and scene.fps == pytest.approx(12)
    np.testing.assert_allclose(scene.times, np.arange(24) / 12, atol=1e-3)


class Lookers(Finder):
    """Also looks again at known places, but for pictures in `blind`."""

    def __init__(self, blind: Sequence[int] = ()) -> None:
        super().__init__()
        self.order, self.blind = "", blind

    def __call__(self, image: np.ndarray) -> Detections:
        self.order += "w"
        return super().__call__(image)

    def again(self, image: np.ndarray, boxes_xyxy: np.ndarray) -> Detections:
        self.order += "a"
        found = Finder()(image)
        return found.take(slice(0, len(found) - (len(self.order) in self.blind)))


def test_a_whole_look_comes_first_every_third_time_and_where_somebody_is_missed(film, tmp_path, predictor, monkeypatch):
    finder = Lookers(blind=(4,))
    monkeypatch.setattr(job, "make_detector", lambda name, threshold=None: finder)
    with_all = job.watch_film(config(tmp_path / "a", film), film, "a", predictor).scene
    # Nobody's speed is known at the second look, and at the fourth one is missed: then the whole is looked at.
    assert finder.order == ("wawaw" + "aaw" * 5)[: len(finder.order)] and len(finder.order) >= 12
    monkeypatch.setattr(job, "make_detector", lambda name, threshold=None: Finder())
    plain = job.watch_film(config(tmp_path / "b", film), film, "b", predictor).scene
    assert len(with_all.people) == len(plain.people) == 2
    for one, other in zip(with_all.people, plain.people, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_allclose(one.transl, other.transl, atol=1e-6)


def test_options_reach_the_scene(film, tmp_path, predictor, finder):
    asked = config(tmp_path / "out", film, start=0.5, end=2.0, fps=6.0, max_people=1, focal=400.0, smooth="none")
    scene = job.watch_film(asked, film, "crossing", predictor).scene
    assert scene.frames.tolist() == list(range(6, 24, 2)) and len(scene.people) == 1
    assert scene.camera.focal_px == 400 and scene.camera.source == "--focal" and scene.fps == 6
    assert scene.people[0].frames.tolist() == scene.frames.tolist()


def equal(a, b) -> None:
    assert [m.track_id for m in a.people] == [m.track_id for m in b.people]
    for one, other in zip(a.people, b.people, strict=True):
        for name in ("frames", "box_xyxy", "body_pose", "global_orient", "betas", "transl", "confidence"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5, err_msg=name)


def test_a_stopped_run_goes_on_where_it_was(film, tmp_path, predictor, monkeypatch):
    monkeypatch.setattr(job, "PART_FRAMES", 8)
    monkeypatch.setattr(job, "make_detector", lambda name, threshold=None: Finder())
    whole = job.watch_film(config(tmp_path / "whole", film), film, "crossing", predictor).scene
    stopped = Finder(stop_after=9)
    monkeypatch.setattr(job, "make_detector", lambda name, threshold=None: stopped)
    with pytest.raises(KeyboardInterrupt):
        job.watch_film(config(tmp_path / "out", film), film, "crossing", predictor)
    rest = Finder()
    monkeypatch.setattr(job, "make_detector", lambda name, threshold=None: rest)
    result = job.watch_film(config(tmp_path / "out", film, resume=True), film, "crossing", predictor)
    assert 0 < result.frames <= 16 and rest.looks < 12
    equal(result.scene, whole)
    again = job.watch_film(config(tmp_path / "out", film, resume=True), film, "crossing", predictor)
    assert again.frames == 0
    equal(again.scene, whole)
    others: list[dict] = [{"fps": 5.0}, {"parts": ("body",)}, {"parts": ("none",)}, {"gender": "male"}, {"height": 1.7}]
    for other in others:
        with pytest.raises(BadInput, match="other options"):
            job.watch_film(config(tmp_path / "out", film, resume=True, **other), film, "crossing", predictor)
    part = next((tmp_path / "out" / ".crossing_parts").glob("*.npz"))
    part.write_bytes(b"PK broken")
    with pytest.raises(BadInput, match="without --resume"):
        job.watch_film(config(tmp_path / "out", film, resume=True), film, "crossing", predictor)


def predict(asked: PredictConfig, path: Path, predictor: Predictor, said: list[str] | None = None):
    source = Source(path, path.stem)
    return job.predict_film(asked, source, predictor, {}, (said if said is not None else []).append)


def test_the_files_and_what_is_left_of_the_work(film, tmp_path, predictor, finder):
    out = tmp_path / "out"
    asked = config(out, film, save=("npz", "mot"))
    _, written = predict(asked, film, predictor)
    names = sorted(path.name for path in written)
    assert names == ["crossing.json", "crossing_mot.txt", "crossing_person0.npz", "crossing_person1.npz"]
    assert sorted(path.name for path in out.iterdir()) == names  # no parts
    rows = json.loads((out / "crossing.json").read_text())
    assert {row["image_id"] for row in rows} == set(range(24)) and len({row["track_id"] for row in rows}) == 2
    assert not job.work_is_begun(out, "crossing")


def test_a_full_disk_keeps_what_was_seen(film, tmp_path, predictor, finder, monkeypatch):
    import wholebody.output.film as outputs

    real = outputs.write_film

    def full(*args, **options):
        raise OutputError("cannot write crossing.glb: the disk is full.")

    monkeypatch.setattr(outputs, "write_film", full)
    asked = config(tmp_path / "out", film, save=("mot",))
    with pytest.raises(OutputError, match="full"):
        predict(asked, film, predictor)
    assert job.work_is_begun(tmp_path / "out", "crossing")
    monkeypatch.setattr(outputs, "write_film", real)
    looks = finder.looks
    asked = config(tmp_path / "out", film, save=("mot",), resume=True)
    result, written = predict(asked, film, predictor)
    assert finder.looks == looks and result.frames == 0 and all(path.exists() for path in written)


@pytest.mark.parametrize("kind", ["overlay", "glb", "html"])
def test_a_disk_that_fills_up_while_a_film_is_written(tmp_path, predictor, finder, small_disk, kind):
    """What was written before stays and can be read, of the rest nothing; with room again a resumed run ends well."""
    noisy = [image // 2 + np.random.default_rng(k).integers(0, 99, image.shape).astype(np.uint8)
             for k, image in enumerate(crossing(12))]  # fmt: skip
    path = write(tmp_path / "noisy.mp4", noisy)
    out = small_disk / "out"
    _, before = predict(config(out, path, save=("npz", "mot")), path, predictor)
    kept = {file: file.read_bytes() for file in before}
    ballast = small_disk / "ballast"
    with open(ballast, "wb") as file, contextlib.suppress(OSError):
        file.write(bytes(1024 * (1024 - 120) - sum(map(len, kept.values()))))
    with pytest.raises(OutputError, match="disk is full"):
        predict(config(out, path, save=(kind,)), path, predictor)
    assert {file: file.read_bytes() for file in out.iterdir() if file.is_file()} == kept
    with np.load(out / "noisy_person0.npz") as numbers:
        assert len(numbers["poses"]) == 12
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    looks = finder.looks
    _, written = predict(config(out, path, save=(kind,), resume=True), path, predictor)
    assert finder.looks == looks and all(file.stat().st_size > 0 for file in written)


def test_what_goes_wrong_on_a_thread_reaches_the_caller_and_the_threads_end(
    film, tmp_path, predictor, finder, monkeypatch
):
    def broken(*about):
        raise MemoryError("no room for the network")

    monkeypatch.setattr(Predictor, "see", broken)
    with pytest.raises(MemoryError, match="no room"):
        job.watch_film(config(tmp_path, film), film, "a", predictor)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("wholebody-")]


def test_nobody_in_it(tmp_path, predictor, finder):
    path = write(tmp_path / "empty.mp4", [frame_with({})] * 8)
    result, written = predict(config(tmp_path / "out", path, save=("json", "glb", "mot")), path, predictor)
    assert result.scene.people == () and json.loads((tmp_path / "out" / "empty.json").read_text()) == []
    assert all(path.exists() for path in written)


def test_a_person_in_one_frame_only(tmp_path, predictor, finder):
    frames = [frame_with({})] * 12
    frames[11] = frame_with({"red": (100, 90)})
    path = write(tmp_path / "glimpse.mp4", frames)
    result, written = predict(config(tmp_path / "out", path, save=("json", "npz", "bvh", "glb")), path, predictor)
    (motion,) = result.scene.people
    assert len(motion.frames) == 1 and motion.frames[0] == 11
    assert all(path.stat().st_size > 0 for path in written)


def test_one_frame_only(tmp_path, predictor, finder):
    path = write(tmp_path / "one.mp4", [frame_with({"red": (100, 90)})])
    result, _ = predict(config(tmp_path / "out", path, save=("json", "npz", "bvh", "glb", "mot")), path, predictor)
    assert len(result.scene.people) == 1 and len(result.scene.frames) == 1


def test_a_film_that_breaks_off_gives_what_it_has_and_says_so(tmp_path, predictor, finder):
    noisy = [image + np.random.default_rng(k).integers(0, 25, image.shape).astype(np.uint8)
             for k, image in enumerate(crossing())]  # fmt: skip
    path = write(tmp_path / "cut.mkv", noisy)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    said: list[str] = []
    result, _ = predict(config(tmp_path / "out", path, save=("json",)), path, predictor, said)
    assert 6 < len(result.scene.frames) < 20 and len(result.scene.people) == 2
    assert any("breaks off at" in line for line in said) and any("breaks off" in note for note in result.scene.notes)


def test_a_cut_of_the_film_starts_anew(tmp_path, predictor, finder):
    other = [255 - frame_with({}) // 3 for _ in range(12)]
    for k, image in enumerate(other):
        cv2.rectangle(image, (100 + k, 50), (130 + k, 140), COLOURS["red"], -1)
    path = write(tmp_path / "cut.mp4", [*crossing(12), *other])
    scene = job.watch_film(config(tmp_path / "out", path), path, "cut", predictor).scene
    assert [(int(m.frames[0]), int(m.frames[-1])) for m in scene.people] == [(0, 11), (0, 11), (12, 23)]


def test_nothing_between_start_and_end(tmp_path, predictor, finder):
    path = write(tmp_path / "gap.mp4", crossing(4), rate=1)
    with pytest.raises(BadInput, match="--start"):
        job.watch_film(config(tmp_path / "out", path, start=1.2, end=1.8), path, "gap", predictor)


def test_boxes_from_a_file_are_refused(film, tmp_path, predictor):
    with pytest.raises(BadInput, match="for pictures"):
        job.watch_film(config(tmp_path / "out", film, boxes="boxes.json"), film, "crossing", predictor)


def test_films_among_the_inputs(film, tmp_path):
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(photos / f"{number:03d}.png"), frame_with({}))
    (photos / "deep" / "inner.mov").write_bytes(film.read_bytes())
    films, rest = find_films([str(film), str(photos), "nowhere.mp4"], None)
    assert [source.name for source in films] == ["crossing", "deep/inner"] and rest == [str(photos), "nowhere.mp4"]
    films, rest = find_films([str(photos)], 25.0)
    assert [source.name for source in films] == ["photos"] and rest == []
    films, rest = find_films([str(tmp_path / "*.mp4"), str(photos / "*.png")], None)
    assert [source.name for source in films] == ["crossing"] and rest == [str(photos / "*.png")]
    films, _ = find_films([str(photos)], None, skip=photos / "deep")
    assert films == []


def test_memory_stays_while_a_film_goes_on():
    class Nobody:
        model = None

        def see(self, images, found, who, every):
            return len(images)

        def laid_on(self, images, seen, who, hands):
            return [[] for _ in range(seen)]

    def nobody(image):
        return Detections(np.zeros((0, 4)), np.zeros(0))

    watcher = watching.Watcher(Nobody(), nobody, 600.0, (640, 360), 30.0)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (360, 640, 3)).astype(np.uint8)
    tracemalloc.start()
    for number in range(160):
        watcher.see(Frame(number, number / 30, picture.copy()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6  # 110 MB if the frames were kept
    watcher.finish()
    assert len(watcher.take_part().numbers) == 160


@pytest.mark.parametrize(
    ("options", "says"),
    [({"camera": "flying"}, "--camera"), ({"smooth": "very"}, "--smooth"), ({"max_people": 0}, "--max-people"),
     ({"look": "none"}, "--look")],
)  # fmt: skip
def test_options_that_mean_nothing(tmp_path, options, says):
    with pytest.raises(BadInput, match=says):
        config(tmp_path, tmp_path, **options)


def test_the_kinds_of_files():
    both = config(Path("out"), Path("x"), save=("obj", "npz", "bvh"))
    assert both.kinds == ("obj", "npz") and both.film_kinds == ("npz", "bvh", "json")
    assert "json" in config(Path("out"), Path("x")).film_kinds
