"""docs/datasets.md lists every file that a set needs, and no other."""

import itertools
import re
from pathlib import Path

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
