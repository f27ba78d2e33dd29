"""Give mutated files to the readers, each format in a process of its own with limits on memory and time.

    python -m tools.fuzz 20              for 20 minutes
    python -m tools.fuzz --inputs 50     so many mutations of each format: the same ones each time
    python -m tools.fuzz --inputs 50 --together    all in one process, which is quicker

Counted as findings: any exception but WholebodyError, a process that dies, more than 10 seconds or 1 GB for one file,
code that ran (a canary in the pickles; Python's audit events), and anything written outside of the working folder.
The file of each finding is kept in `--out`, the smallest for each place in the code. Exit status 1 if there is any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tools.fuzz.mutate import mutate
from tools.fuzz.targets import TARGETS

SECONDS, MEGABYTES = 10, 1024
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", nargs="?", type=float, default=20)
    parser.add_argument("--inputs", type=int, help="mutations of each format, in place of a time")
    parser.add_argument("--together", action="store_true", help="one process for all formats")
    parser.add_argument("--only", action="append", choices=TARGETS, help="a format; may be given again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("output/fuzz"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _work(args.worker, args.seed, args.inputs, args.minutes * 60, args.out)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.only or list(TARGETS)
    if args.together:
        names = ["+".join(names)]
    total = 0
    findings: dict[str, Path] = {}
    for name in names:
        count, found = _run(name, args.seed, args.inputs, args.minutes * 60 / len(names), args.out)
        total, findings = total + count, findings | found
        print(f"{name}: {count:,} files, {len(found)} findings", flush=True)
    for what, kept in findings.items():
        print(f"  {what}\n    {kept}")
    print(f"{total:,} files, {len(findings)} findings")
    return 1 if findings else 0


def _run(name: str, seed: int, inputs: int | None, seconds: float, out: Path) -> tuple[int, dict[str, Path]]:
    """A format's files; a worker that dies or hangs is a finding, and another one goes on."""
    end, count, found = time.monotonic() + seconds, 0, {}
    first = 0
    while (inputs is None and time.monotonic() < end) or (inputs is not None and first < inputs):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "-m", "tools.fuzz", str((end - time.monotonic()) / 60), "--worker", f"{name}:{first}",
                "--seed", str(seed), "--out", folder, *(["--inputs", str(inputs)] if inputs is not None else []),
            ]  # fmt: skip
            said_at = Path(folder) / "said.txt"  # a pipe that nobody reads holds up whoever warns of much
            with said_at.open("wb") as file:
                worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
            state = Path(folder) / "state.json"
            why = _watch(worker, state)
            said = said_at.read_text(errors="replace")
            known = json.loads(state.read_text()) if state.exists() else {"next": first}
            known = {"format": name, "count": 0, "found": {}} | known
            count += known["count"]
            for what, file in known["found"].items():
                found[what] = _keep(out, what, Path(file).read_bytes())
            if not why:
                break
            current = Path(folder) / "current"
            if not current.exists():
                raise SystemExit(f"the worker of {name} cannot begin: {said[-2000:]}")
            what = f"{known['format']}: {why}"
            found[f"{what} ({hashlib.sha256(current.read_bytes()).hexdigest()[:8]})"] = _keep(
                out, what + str(known["next"]), current.read_bytes()
            )
            if "+" in name:
                break
            first = max(known["next"], first) + 1
    return count, found


def _watch(worker: subprocess.Popen[bytes], state: Path) -> str:
    """Why the worker ended before its time; "" if it did not."""
    last, since, used = None, time.monotonic(), 0.0
    while worker.poll() is None:
        time.sleep(0.2)
        now = state.stat().st_mtime_ns if state.exists() else None
        waits, spent = _waits(worker.pid)
        if now != last:
            last, since, used = now, time.monotonic(), spent
            continue
        # At first it imports and makes seeds. On a busy machine, who wants to run and may not does not hang.
        long = (6 if state.exists() else 60) * SECONDS
        if spent - used > long or (waits and time.monotonic() - since > long):
            worker.kill()
            worker.wait()
            return "it hangs"
    if worker.returncode < 0:
        return f"the interpreter dies of {signal.Signals(-worker.returncode).name}"
    return f"the interpreter ends with {worker.returncode}" if worker.returncode else ""


def _waits(pid: int) -> tuple[bool, float]:
    """Whether a process waits for something else than the processor or the disk, and the seconds of processor time it
    took."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True, 0.0
    return fields[0] not in "RD", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _keep(out: Path, what: str, content: bytes) -> Path:
    name = what.partition(":")[0]
    path = (
        out
        / f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:10]}{TARGETS[name].suffix if name in TARGETS else ''}"
    )
    if not path.exists() or len(content) < path.stat().st_size:
        path.write_bytes(content)
    return path


class _TooLong(BaseException):
    pass


def _work(what: str, seed: int, inputs: int | None, seconds: float, folder: Path) -> None:
    """The worker: `what` is FORMAT:FIRST, or FORMAT+FORMAT+...:0 for one after the other."""
    names, _, start = what.partition(":")
    begin = time.monotonic()
    place = folder / "work"
    place.mkdir()
    events: list[str] = []
    watching = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not watching:
            return
        if event.startswith(_FORBIDDEN):
            events.append(f"{event} {arguments!r:.80}")
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            if not str(arguments[0]).startswith(str(folder)):
                events.append(f"written outside: {arguments[0]!r:.80}")

    sys.addaudithook(hook)
    signal.signal(signal.SIGPROF, _alarm)  # of the processor's time: a busy machine is no finding
    found: dict[str, str] = {}
    count = 0
    chosen = names.split("+")
    for turn, name in enumerate(chosen, 1):
        target, number, end = TARGETS[name], int(start), begin + seconds * turn / len(chosen)
        seeds = list(target.seeds())
        path = place / f"x{target.suffix}"
        path.write_bytes(seeds[0])
        _try(target, path)  # imports what it imports, before anything is watched
        while time.monotonic() < end if inputs is None else number < inputs:
            rng = random.Random(f"{seed}:{name}:{number}")
            content = seeds[number] if number < len(seeds) else mutate(rng.choice(seeds), rng, seeds)
            (folder / "current").write_bytes(content)
            _note(folder, name, number, count, found)
            path.write_bytes(content)
            before = _megabytes("VmRSS", begin=True)
            events.clear()
            watching = True
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                problem = _try(target, path)
            except _TooLong:
                problem = f"takes more than {SECONDS} seconds"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                watching = False
            if _megabytes("VmHWM") - before > MEGABYTES:
                problem = problem or f"takes more than {MEGABYTES} MB"
            if events:
                problem = f"runs or writes: {events[0]}"
            if extra := [other.name for other in place.iterdir() if other != path]:
                problem = problem or f"leaves files: {extra}"
            if problem:
                what = f"{name}: {problem}"
                kept = folder / hashlib.sha256(what.encode()).hexdigest()[:10]
                if not kept.exists() or len(content) < kept.stat().st_size:
                    kept.write_bytes(content)
                found[what] = str(kept)
            number, count = number + 1, count + 1
        path.unlink()
    _note(folder, name, number, count, found)


def _megabytes(which: str, begin: bool = False) -> float:
    """Memory of this process now (VmRSS) or at most since `begin` (VmHWM); 0 where the system does not say."""
    try:
        if begin:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().split("\n")
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def _alarm(*_: object) -> None:
    raise _TooLong


def _note(folder: Path, name: str, number: int, count: int, found: dict[str, str]) -> None:
    part = folder / "state.part"
    part.write_text(json.dumps({"format": name, "next": number, "count": count, "found": found}))
    os.replace(part, folder / "state.json")


def _try(target: object, path: Path) -> str:
    """What is wrong with how the reader takes a file; "" if it reads or refuses it."""
    from wholebody.errors import WholebodyError

    try:
        target.read(path)  # type: ignore[attr-defined]
    except WholebodyError:
        pass
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "wholebody" in frame.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
        return f"{type(error).__name__} in {where}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
