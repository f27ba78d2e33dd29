"""docs/datasets.md lists every file that a set needs, and no other."""

import itertools
import re
from pathlib import Path

from wholebody.data.family import FAMILY_SETS, box_ratio
from wholebody.data.readers import READERS

DOC = Path(__file__).parents[2] / "docs" / "datasets.md"


def spread(pattern):
    """`a{1,2}b` -> `a1b`, `a2b`, as a shell does it."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [part.split(",") if k % 2 else [part] for k, part in enumerate(parts)]
    return {"".join(choice) for choice in itertools.product(*choices)}


def listed():
    """(set, split) -> the files that the page lists."""
    (block,) = re.findall(r"## Every file.*?```\n(.*?)```", DOC.read_text(encoding="utf-8"), re.S)
    found, name, split = {}, "", ""
    for line in block.splitlines():
        words = line.split()
        if not line.startswith(" "):
            name, split = words[:2]
        elif len(words) == 2:
            split = words[0]
        found.setdefault((name, split), set()).update(spread(words[-1]))
    return found


def test_every_file_that_a_set_needs_is_listed():
    needed = {(info.name, split): set(files) for info in READERS.values() for split, files in info.files.items()}
    assert listed() == needed


def test_what_agora_names_beside_is_what_its_tools_write():
    text = DOC.read_text(encoding="utf-8")
    source = (Path(DOC).parents[1] / "src/wholebody/data/preparation/agora.py").read_text(encoding="utf-8")
    for folder in ("gt_joints_2d", "gt_joints_3d", "gt_verts"):
        assert f"`{folder}/…`" in text and folder in source


def row_of(one):
    """A set of the family as the page's table has it."""
    size = f"{one.size_hw[0]}×{one.size_hw[1]}" if one.size_hw else "any"
    every = [f"{n} ({name})" for name, n in one.every.items()]
    if len(set(one.every.values())) == 1 and len(one.every) == 2:
        every = [str(next(iter(one.every.values())))]
    read = f"; in tests {one.test_every}" if one.test_every > 1 else ""
    boxes = f"{box_ratio(one.name, 'smpler_x'):g}{', parts 1.2' if one.part_boxes else ''}"
    hands = "flat" + ("" if len(one.flat_in) == 2 else f" ({one.flat_in[0]})") if one.flat_in else "relaxed"
    form = "COCO form" if one.form == "coco" else f"`{one.home}{'/' + one.pictures if one.pictures else ''}`"
    cells = (one.name, f"{one.mix}+" if one.mix else "–", form, size, (", ".join(every) or "1") + read, boxes, hands,
             one.parts, f"<{one.source}>")  # fmt: skip
    return f"| {' | '.join(cells)} |"


def test_the_familys_table_is_the_codes():
    lines = DOC.read_text(encoding="utf-8").splitlines()
    missing = [row for row in map(row_of, FAMILY_SETS.values()) if row not in lines]
    assert not missing, "\n".join(missing)
    start = next(number for number, line in enumerate(lines) if line.startswith("| MSCOCO | 5+"))
    assert [line.split(" ")[1] for line in lines[start : start + len(FAMILY_SETS)]] == list(FAMILY_SETS)
