"""What inputs become items, what single lines have wrong with them, and what is refused at once."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import pytest
from pretend_work import picture, pictures, tar

from wholebody.errors import BadInput
from wholebody.files.storage import Store
from wholebody.scale.item import Item, kind_of, together
from wholebody.scale.items import read_inputs
from wholebody.scale.manifest import read_manifest
from wholebody.scale.plan import make_plan, read_plan, read_shard
from wholebody.scale.tars import read_tar

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, names, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows
            )  # fmt: skip
    return path


def sources(items: object) -> list[str]:
    return [item.source for item in items]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.JPG", "picture"), ("b.mp4", "film"), ("c.tar", "tar"), ("c.tgz", "tar"), ("d.csv.gz", "manifest"),
     ("e.parquet", "manifest"), ("f.txt", "manifest"), ("g.gif", "picture"), ("x.tar::a/b.png", "picture"),
     ("h.doc", ""), ("s3://b/k.webp", "picture"), ("noname", "")],
)  # fmt: skip
def test_kinds_by_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_text_a_path_a_line(tmp_path: Path) -> None:
    """Relative paths start from the manifest's folder; a name may hold spaces, commas and #."""
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa b.png\r\n\r\n#c,d.png\n/abs/x.jpg\ns3://b/y.png\n../up.mp4\n".encode())
    assert sources(read_manifest(str(path))) == [
        f"{tmp_path}/a b.png", f"{tmp_path}/#c,d.png", "/abs/x.jpg", "s3://b/y.png", f"{tmp_path.parent}/up.mp4",
    ]  # fmt: skip
    packed = tmp_path / "list.txt.gz"
    packed.write_bytes(gzip.compress(b"q.png\n"))
    assert sources(read_manifest(str(packed), root="s3://bucket/set/")) == ["s3://bucket/set/q.png"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_columns_of_paths_and_boxes(tmp_path: Path, suffix: str) -> None:
    two = [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 5.0, 5.0]]
    rows: list[dict[str, object]] = [{"image_path": "a.png", "boxes": two}, {"image_path": "b.png", "boxes": []}]
    boxes = table(tmp_path / f"a.{suffix}", rows)
    found = list(read_manifest(str(boxes)))
    assert [item.boxes for item in found] == [((1, 2, 3, 4), (0, 0, 5, 5)), ()]
    coco = table(tmp_path / f"b.{suffix}", [{"file_name": "a.png", "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}])
    assert next(read_manifest(str(coco))).boxes == ((1, 2, 4, 6, 0.5),)
    corners = table(
        tmp_path / f"c.{suffix}", [{"path": f"{name}.png", "x0": 1.0, "y0": 2.0, "x1": x1, "y1": 9.0}
                                   for name, x1 in (("a", 3.0), ("a", 4.0), ("a", 3.0), ("b", 7.0))],
    )  # fmt: skip
    a, b = read_manifest(str(corners))  # lines of one picture that follow each other are one picture
    assert a.boxes == ((1, 2, 3, 9), (1, 2, 4, 9)) and b.boxes == ((1, 2, 7, 9),)
    named = table(tmp_path / f"d.{suffix}", [{"where": "a.png", "path": "never.png"}])
    assert sources(read_manifest(str(named), "where")) == [f"{tmp_path}/a.png"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("name,label\na.png,1\n", {}, "--column"),
        ("path,label\na.png,1\n", {"column": "img"}, "no column 'img'"),
        ("", {}, "is empty"),
    ],
)
def test_wrong_columns(tmp_path: Path, content: str, options: dict[str, str], message: str) -> None:
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(BadInput, match=message):
        list(read_manifest(str(tmp_path / "m.csv"), **options))


def test_manifests_that_cannot_be_read(tmp_path: Path) -> None:
    for name, content in (("a.parquet", b"PAR1 nothing PAR1"), ("b.txt.gz", b"\x1f\x8bcut"), ("c.txt", b"\0\1\2")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=name):
            list(read_manifest(str(tmp_path / name)))


def test_a_bad_line_is_one_bad_picture(tmp_path: Path) -> None:
    """It becomes an item that says what is wrong; the lines around it stay."""
    (tmp_path / "m.csv").write_text(
        'path,boxes\na.png,"[[0,0,5,5]]"\nb.png,"[[5,5,0,0]]"\nc.png,oops\n,"[]"\nd.png,"[]",7\ne.png,"[[0,0,NaN,5]]"\n'
        'f.png,"[1,2,3]"\ng.doc,\nh.png,\n'
    )
    found = list(read_manifest(str(tmp_path / "m.csv")))
    assert [bool(item.problem) for item in found] == [False, True, True, True, True, True, True, True, False]
    problems = " ".join(item.problem for item in found)
    for word in ("inverted", "oops", "no path", "3 fields", "finite", "no picture", "line 3"):
        assert word in problems, word


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/in")
    with open(os.fsencode(tmp_path) + b"/in/\xff.png", "wb") as file:
        file.write(picture())
    (found,) = read_inputs([str(tmp_path / "in")])
    assert "rename" in found.problem and "\\xff" in found.source
    (found,) = read_inputs([os.fsdecode(os.fsencode(tmp_path) + b"/in/\xff.png")])
    assert "rename" in found.problem and "\\xff" in found.source


def test_folders_globs_and_tars(tmp_path: Path) -> None:
    pictures(tmp_path / "a" / "b", 2)
    (tmp_path / "a" / ".hidden").mkdir()
    pictures(tmp_path / "a" / ".hidden", 1)
    (tmp_path / "a" / "notes.doc").write_text("")
    (tmp_path / "a" / "film.mp4").write_text("")
    tar(tmp_path / "a" / "x.tar", {"0.png": picture()})
    (tmp_path / "a" / "out").mkdir()
    pictures(tmp_path / "a" / "out", 1, 7)
    found = list(read_inputs([str(tmp_path / "a")], skip=str(tmp_path / "a" / "out")))
    assert [(Path(i.source).name, i.kind) for i in found] == [
        ("film.mp4", "film"), ("x.tar", "tar"), ("00000.png", "picture"), ("00001.png", "picture"),
    ]  # fmt: skip
    assert len(list(read_inputs([str(tmp_path / "a" / "**" / "*.png")]))) == 3
    for wrong in ("nothing", "*.jpg", "a/notes.doc"):
        with pytest.raises(BadInput, match=wrong.rpartition("/")[2].replace("*", r"\*")):
            list(read_inputs([str(tmp_path / wrong)]))


def test_members_of_a_tar(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {
        "./a/0.png": picture(0), "./a/0.json": b'{"boxes": [[0, 0, 9, 9]]}', "a/0.cls": b"7", "1.png": picture(1),
        "1.json": b'{"boxes": 3}', "2.jpg": picture(2), "2.json": b"[]", "2.seg.png": picture(3), "1.png ": b"",
    })  # fmt: skip
    found = list(read_tar(path))
    content = path.read_bytes()
    assert [member.name for member in found] == ["./a/0.png", "1.png", "2.jpg", "2.seg.png"]
    assert found[0].boxes == ((0, 0, 9, 9),) and "boxes are 3" in found[1].problem and found[2].boxes is None
    assert all(content[m.offset : m.offset + m.size] == picture(k) for k, m in enumerate(found))
    end = found[-1].offset + -(-found[-1].size // 512) * 512
    for cut, pictures_left in ((end + 512, 4), (end, 3), (end - 600, 3), (found[1].offset + 100, 1), (700, 0), (0, 0)):
        path.write_bytes(content[:cut])  # `end` takes the empty last member's header with it
        some = []
        with pytest.raises(BadInput, match="cut off"):
            for member in read_tar(path):
                some.append(member)
        assert len(some) >= pictures_left, cut


def plan_of(store: Store, items: list[Item], size: int | None = None) -> list[list[Item]]:
    plan = make_plan(store, items, size)
    assert read_plan(store) == plan and plan.items == sum(len(read_shard(store, plan, k)) for k in range(plan.shards))
    return [read_shard(store, plan, number) for number in range(plan.shards)]


def naive(items: list[Item]) -> list[Item]:
    seen: dict[str, Item] = {}
    for item in items:
        seen[item.source] = together(seen[item.source], item) if item.source in seen else item
    return list(seen.values())


def test_each_source_once_with_all_its_boxes(tmp_path: Path) -> None:
    import random

    chance = random.Random(3)
    items = [
        Item(f"/{chance.randrange(60)}.png", boxes=((0.0, 0.0, 1.0 + chance.randrange(3), 2.0),)) for _ in range(300)
    ]
    shards = plan_of(Store(tmp_path), items, 7)
    assert [item for shard in shards for item in shard] == naive(items)
    assert [len(shard) for shard in shards[:-1]] == [7] * (len(shards) - 1)
    plan = read_plan(Store(tmp_path))
    assert plan is not None and plan.duplicates == 300 - plan.items


def test_films_and_tars_are_shards_of_their_own(tmp_path: Path) -> None:
    items = [Item("/a.png"), Item("/b.mp4", "film"), Item("/c.png"), Item("/d.tar", "tar"), Item("/e.png")]
    assert [[i.source for i in shard] for shard in plan_of(Store(tmp_path), items, 10)] == [
        ["/b.mp4"], ["/d.tar"], ["/a.png", "/c.png", "/e.png"],
    ]  # fmt: skip


def test_the_faster_of_two_drivers_plans(tmp_path: Path) -> None:
    """Both then work by the same plan, and of the other nothing stays."""
    store = Store(tmp_path)

    def others() -> object:
        yield Item("/a.png")
        make_plan(store, [Item("/theirs.png")])
        yield Item("/b.png")

    plan = make_plan(store, others())  # type: ignore[arg-type]
    assert sources(read_shard(store, plan, 0)) == ["/theirs.png"]
    assert len(store.list("plan")) == 1


def test_a_long_manifest_passes_through(tmp_path: Path) -> None:
    """Memory does not grow with its lines, but for 8 bytes each."""
    import tracemalloc

    path = tmp_path / "long.txt"

    def peak(count: int) -> int:
        with open(path, "w") as file:
            file.writelines(f"/pictures/of/somebody/somewhere/{number:09d}.jpg\n" for number in range(count))
        make_plan(Store(tmp_path / "before"), [Item("/a.png")])  # what is imported on the way
        tracemalloc.start()
        make_plan(Store(tmp_path / str(count)), read_inputs([str(path)]), 1000)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    short, long = peak(20_000), peak(36_000)
    assert long - short < 16_000 * 40  # a path as a Python text alone takes 90
