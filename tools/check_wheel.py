"""Whether a built wheel holds what an installation needs: `python tools/check_wheel.py dist`."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


def missing(wheel: Path) -> list[str]:
    """Files of the package (but for what Python and numba keep beside them) that the wheel lacks."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    ours = (path for path in (SOURCE / "wholebody").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(name for path in ours if (name := path.relative_to(SOURCE).as_posix()) not in held)


def main(folder: Path) -> int:
    wheels = sorted(folder.glob("wholebody-*.whl"))
    if len(wheels) != 1 or len(list(folder.glob("wholebody-*.tar.gz"))) != 1:
        print(f"{folder}: expected one wheel and one source archive", file=sys.stderr)
        return 1
    lacking = missing(wheels[0])
    print(f"{wheels[0].name}: {wheels[0].stat().st_size / 1e6:.1f} MB")
    for name in lacking:
        print(f"  lacks {name}")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
