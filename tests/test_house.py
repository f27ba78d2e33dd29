"""The plan of the house holds: rooms import from floors below their own, nothing goes round in a circle, and what a
file keeps for itself (`_name`) is used by no other.

Imports are read from the source, those inside functions and those for types alone included: an import that runs late
is still something that a room knows of the other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import wholebody

SOURCE = Path(wholebody.__file__).parent

FLOORS = (
    ("errors", "options"),
    ("geometry", "files"),
    ("body",),
    ("fitting",),
    ("model", "drawing"),
    ("people", "data"),
    ("output", "synthesis", "motion"),
    ("evaluation",),
    ("training",),
    ("pipeline", "serve", "scale"),
    ("cli",),
    ("__main__",),
)
"""From the lowest up. The rooms of one floor know nothing of each other."""

NOT_YET: set[str] = set()
"""What does not hold yet. A line that has come true must go: the tests say so."""


@dataclass(frozen=True)
class Import:
    """`file` (relative to the package) imports `module`, and of it `name` ("" where it is the module itself)."""

    file: str
    module: str
    name: str = ""


def modules() -> dict[str, Path]:
    """Every module of the package by its full name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(path: Path) -> Iterator[Import]:
    file = path.relative_to(SOURCE).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "wholebody":
                    yield Import(file, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: relative imports hide which room is meant"
            if (node.module or "").split(".")[0] != "wholebody":
                continue
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield Import(file, whole) if whole in MODULES else Import(file, str(node.module), alias.name)


IMPORTS = [found for path in MODULES.values() for found in imports_of(path)]


def floor_of(module: str) -> int:
    room = module.split(".")[1]
    floors = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"{module}: the room {room!r} stands on no floor; add it to FLOORS, and to the plan"
    return floors[0]


def module_of(file: str) -> str:
    return ".".join(("wholebody", *Path(file).with_suffix("").parts)).removesuffix(".__init__")


def upward(imports: list[Import]) -> list[str]:
    """Imports from the own floor, or from one above it, of another room."""
    wrong = []
    for one in imports:
        module = module_of(one.file)
        # The package's own file opens the door to everything; everybody may ask it for the version.
        if module == "wholebody" or one.module == "wholebody":
            continue
        if one.module.split(".")[1] != module.split(".")[1] and floor_of(one.module) >= floor_of(module):
            wrong.append(f"{one.file} imports {one.module}")
    return wrong


def private(imports: list[Import]) -> list[str]:
    return [f"{one.file} uses {one.name} of {one.module}" for one in imports if _is_private(one.name)]


def private_attributes(path: Path) -> list[str]:
    """`module._name`, where `module` was imported from this package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    file = path.relative_to(SOURCE).as_posix()
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wholebody"):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return [
        f"{file} uses {node.attr} of {known[node.value.id]}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known
        and known[node.value.id] in MODULES and _is_private(node.attr)
    ]  # fmt: skip


@cache
def every_private_use() -> frozenset[str]:
    return frozenset(private(IMPORTS)) | {line for path in MODULES.values() for line in private_attributes(path)}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def circles(imports: list[Import]) -> list[list[str]]:
    """Modules that import each other, directly or through others: the strongly connected parts of the graph."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for one in imports:
        module = module_of(one.file)
        if module != "wholebody":
            graph.setdefault(module, set()).add(one.module)
    reach = {name: _reachable(graph, name) for name in graph}
    found = {tuple(sorted({other for other in reach[name] if name in reach.get(other, ())})) for name in graph}
    return [list(part) for part in sorted(found) if part]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    open_ = list(graph[start])
    while open_:
        name = open_.pop()
        if name not in seen:
            seen.add(name)
            open_.extend(graph.get(name, ()))
    return seen


def test_rooms_import_from_floors_below_their_own():
    assert sorted(set(upward(IMPORTS)) - NOT_YET) == []


def test_no_imports_go_round_in_a_circle():
    assert circles(IMPORTS) == []


def test_no_private_name_is_used_by_another_file():
    assert sorted(every_private_use() - NOT_YET) == []


def test_the_list_of_exceptions_only_shrinks():
    assert sorted(NOT_YET - set(upward(IMPORTS)) - every_private_use()) == [], "these hold now: take them off NOT_YET"


@pytest.mark.parametrize(
    ("file", "imported", "wrong"),
    [
        ("model/osx.py", Import("", "wholebody.training.loop"), True),
        ("training/loop.py", Import("", "wholebody.model.osx"), False),
        ("data/index.py", Import("", "wholebody.people.predictor"), True),  # the same floor
        ("data/index.py", Import("", "wholebody.data.sample"), False),
        ("training/log.py", Import("", "wholebody", "__version__"), False),
    ],
)
def test_what_counts_as_upward(file: str, imported: Import, wrong: bool):
    assert bool(upward([Import(file, imported.module, imported.name)])) == wrong


def test_what_counts_as_a_circle():
    a, b, c = "body/layer.py", "body/assets.py", "body/joints.py"
    chain = [Import(a, module_of(b)), Import(b, module_of(c))]
    assert circles(chain) == []
    assert circles([*chain, Import(c, module_of(a))]) == [sorted(map(module_of, (a, b, c)))]


def test_settings_can_be_read_on_python_3_10():
    """`get_type_hints`, which the command line and the checkpoints' settings use, fails there on `_: KW_ONLY`."""
    assert [file for file, path in MODULES.items() if "KW_ONLY" in path.read_text(encoding="utf-8")] == []
