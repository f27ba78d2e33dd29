"""A whole job over pictures: claim the folder, plan, let an engine do the shards, put together what came of them.

OUT/job.json       options of the job; made by one driver only, so two jobs cannot share a folder
OUT/plan.json, plan/              what is to be done, see `plan`
OUT/people/, pictures/, dead/, motions/, films/, overlays/, done/        see `shard`
OUT/summary.json, contact.html    written at the end
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any

from wholebody import __version__
from wholebody.errors import BadInput, WholebodyError
from wholebody.files.options import differences
from wholebody.files.reading import sha256_of
from wholebody.files.storage import Store
from wholebody.files.text import counted, shown
from wholebody.files.whole import cannot_write, sweep
from wholebody.scale.child import ChildDied
from wholebody.scale.config import ManyConfig
from wholebody.scale.contact import write_contact_page
from wholebody.scale.engines import engine
from wholebody.scale.item import kind_of
from wholebody.scale.items import read_inputs
from wholebody.scale.plan import PLAN, Plan, make_plan, read_plan, read_shard
from wholebody.scale.shard import Counts, Report, do_shard, marker_of

JOB = "job.json"
FORMAT = "wholebody.job/1"
_FOLDERS = ("people", "pictures", "dead", "done", "plan", "motions", "films", "overlays")
_READERS = 32


class TooManyBad(WholebodyError):
    """More pictures failed than the job allows."""

    exit_status = 1


@dataclass(kw_only=True)
class ManySummary(Counts):
    """What came of a job."""

    out: str
    shards: int
    before: int
    """Shards that earlier runs had finished."""
    duplicates: int
    reasons: list[str] = field(default_factory=list)
    """The first of the bad ones, with why."""
    seconds: float = 0.0

    @property
    def share_bad(self) -> float:
        return self.bad / max(1, self.pictures + self.films)


@dataclass(frozen=True)
class ShardWork:
    """The shards of a job, as `child.Work`. `pictures` is what answers requests for pictures: a work of the same kind,
    whose child answers a list of `Request` by a list of `Answer`, and None by a table about its numbers."""

    out: str
    plan: Plan
    pictures: Any
    overlay_every: int

    def open(self) -> Callable[[Any], Any]:
        opened: Callable[[Any], Any] = self.pictures.open()
        return opened

    def do(self, shard: int, ask: Callable[[Any], Any]) -> Report:
        store = Store(self.out)
        with contextlib.suppress(WholebodyError):
            if store.exists(marker_of(shard)):  # another worker was taken for dead, and was not
                return Report.of(store.read(marker_of(shard)), store.place(marker_of(shard)))

        def about() -> dict[str, Any]:
            for _ in range(3):
                with contextlib.suppress(ChildDied):
                    return dict(ask(None))
            raise WholebodyError(f"shard {shard}: the worker ends again and again; see what it printed")

        items = read_shard(store, self.plan, shard)
        schema, chunk = self.pictures.schema(), self.pictures.chunk
        return do_shard(store, shard, items, ask, schema, about, chunk, self.overlay_every)


def run_job(
    inputs: Sequence[str], out: str, work: Any, options: dict[str, Any], config: ManyConfig, say: Callable[[str], None],
    *, overwrite: bool = False, progress: Callable[[int, int], None] = lambda done, of: None,
) -> ManySummary:  # fmt: skip
    """Do what is not done yet of a job; the same call goes on from wherever it was stopped.

    Args:
        work: see `ShardWork.pictures`.
        options: all that the numbers depend on; a folder takes one set of them.
        overwrite: begin anew where another job was.
        progress: is told how many shards are done, and of how many.

    Raises:
        BadInput: the inputs cannot be read, or the folder holds another job. TooManyBad: more failed than
        `config.max_bad`; what was done stays, and the same command with a higher share goes on.
    """
    assert config.engine is not None
    start = time.monotonic()
    store = Store(out)
    with _alone(store):
        if store.folder is not None:
            for folder in _FOLDERS:  # what killed workers left
                sweep(store.folder / folder)
        _claim(store, _description(inputs, options, config), overwrite)
        plan = read_plan(store)
        if plan is None:
            say("listing the inputs")
            skip = str(store.folder) if store.folder is not None else None
            items = read_inputs(inputs, skip=skip, column=config.column, root=config.root)
            try:
                plan = make_plan(store, items, config.shard_size)
            except BaseException:  # nothing was begun: the folder is nobody's
                if not store.exists(PLAN):
                    store.remove(JOB)
                raise
        said = f", {counted(plan.duplicates, 'line')} named something again" if plan.duplicates else ""
        say(f"{counted(plan.items, 'input')} in {counted(plan.shards, 'shard')}{said}")
        reports = _finished(store, plan, config.retry_bad)
        todo = [shard for shard in range(plan.shards) if shard not in reports]
        summary = _summed(store, plan, reports, before=len(reports))
        if reports:
            say(f"{counted(len(reports), 'shard')} were done before")
        _check_share(summary, plan, len(reports), config.max_bad)
        finished = len(reports)
        progress(finished, plan.shards)

        def done(shard: int, report: Report) -> None:
            nonlocal finished
            finished += 1
            summary.add(report)
            progress(finished, plan.shards)
            _check_share(summary, plan, finished, config.max_bad)

        def left() -> list[int]:
            there = set(store.list("done"))
            return [shard for shard in todo if marker_of(shard).partition("/")[2] not in there]

        if todo:
            shards = ShardWork(store.root, plan, work, config.contact_every)
            engine(config.engine)(shards, todo, config, done, say, left)
        return _finish(store, plan, config, summary, start)


def _finish(store: Store, plan: Plan, config: ManyConfig, summary: ManySummary, start: float) -> ManySummary:
    """Counts from the markers, which are the truth, and the pages."""
    reports = _finished(store, plan, False)
    if len(reports) < plan.shards:
        missing = plan.shards - len(reports)
        raise WholebodyError(f"{missing} of {plan.shards} shards are not finished; the same command goes on from here.")
    whole = _summed(store, plan, reports, summary.before)
    whole.reasons = _reasons(store, [number for number, report in sorted(reports.items()) if report.bad])
    whole.seconds = time.monotonic() - start
    counts = ("shards", *(one.name for one in fields(Counts)), "duplicates")
    table = {name: getattr(whole, name) for name in counts}
    store.write("summary.json", json.dumps({"format": FORMAT, **table}, indent=1).encode())
    if config.contact_every:
        write_contact_page(store, table)
    if whole.share_bad > config.max_bad:
        raise _too_many(whole, config.max_bad, "")
    return whole


# --- whose folder it is -----------------------------------------------------------------------------------------------


def _description(inputs: Sequence[str], options: dict[str, Any], config: ManyConfig) -> dict[str, Any]:
    """What makes a job this one: its inputs, manifests by what stands in them, and all options of the numbers."""
    named = []
    for given in inputs:
        given = given if "://" in given else os.path.abspath(given)
        manifest = kind_of(given) == "manifest" and os.path.isfile(given)
        named.append(f"{given} ({sha256_of(given)[:16]})" if manifest else given)
    own = {name: getattr(config, name) for name in ("column", "root", "shard_size", "contact_every")}
    return {"format": FORMAT, "inputs": named, **options, **own}


def _claim(store: Store, description: dict[str, Any], overwrite: bool) -> None:
    """Make the folder this job's, or see that it is. Raises BadInput where it is another's."""
    if overwrite and store.exists(JOB):
        _clear(store)
    content = json.dumps(description | {"version": __version__}, indent=1, default=str).encode()
    if not store.exists(JOB):
        foreign = [name for name in _FOLDERS if store.list(name)]
        if foreign:
            raise BadInput(
                f"{store}: holds a folder {foreign[0]}/ of no job of wholebody. Choose another --out, or empty it."
            )
        if store.create(JOB, content):
            return
    try:
        before = json.loads(store.read(JOB))
        if not isinstance(before, dict) or before.get("format") != FORMAT:
            raise ValueError("it is of another kind")
    except ValueError as error:
        raise BadInput(f"{store.place(JOB)}: is not the record of a job ({error}). Choose another --out.") from error
    now = json.loads(content)
    changed = differences(
        {name: value for name, value in before.items() if name != "version"},
        {name: value for name, value in now.items() if name != "version"},
    )
    if changed:
        raise BadInput(
            f"{store} is the output of another job ({'; '.join(changed)[:600]}). Choose another --out, or give "
            "--overwrite to begin anew there."
        )


def _clear(store: Store) -> None:
    """Take away a job, its markers first, so that what is left of a stopped clearing is not taken for finished."""
    for folder in ("done", *(name for name in _FOLDERS if name != "done")):
        for name in store.list(folder):
            store.remove(f"{folder}/{name}")
    for name in (PLAN, "summary.json", "contact.html", JOB):
        store.remove(name)


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """One driver at a time in a folder of this machine. On object storage two drivers of one job do each other no harm:
    they write the same bytes."""
    if store.folder is None:
        yield
        return
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = store.folder / ".driver.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read(200).strip() or "another process"
            raise BadInput(f"{store}: {who} is at work on this folder. Wait for it, or choose another --out.") from None
        except OSError:
            pass  # a file system without locks
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield


# --- what is finished -------------------------------------------------------------------------------------------------


def _finished(store: Store, plan: Plan, retry_bad: bool) -> dict[int, Report]:
    """Reports of the shards whose marker is there. retry_bad: markers of those with failures are taken away."""
    names = [name for name in store.list("done") if name.endswith(".json") and name[:-5].isdecimal()]
    numbers = [int(name[:-5]) for name in names if int(name[:-5]) < plan.shards]

    def read(number: int) -> Report | None:
        name = marker_of(number)
        try:
            return Report.of(store.read(name), store.place(name))
        except BadInput:
            return None  # damaged: done again

    with ThreadPoolExecutor(_READERS if store.folder is None else 1) as pool:
        found = [(number, report) for number, report in zip(numbers, pool.map(read, numbers), strict=True) if report]
    if retry_bad:
        for number, report in found:
            if report.bad:
                store.remove(marker_of(number))
        found = [(number, report) for number, report in found if not report.bad]
    return dict(found)


def _summed(store: Store, plan: Plan, reports: Mapping[int, Report], before: int) -> ManySummary:
    summary = ManySummary(out=store.root, shards=plan.shards, before=before, duplicates=plan.duplicates)
    for report in reports.values():
        summary.add(report)
    return summary


def _check_share(summary: ManySummary, plan: Plan, finished: int, most: float) -> None:
    """End a job early that cannot end well any more: of tars nobody knows how many pictures are still to come, so those
    that are done stand for the rest."""
    seen = summary.pictures + summary.films
    expected = plan.items if not plan.tars else max(seen, plan.items, round(seen / max(1, finished) * plan.shards))
    if finished < plan.shards and summary.bad > most * expected:
        raise _too_many(summary, most, " so far")


def _too_many(summary: ManySummary, most: float, when: str) -> TooManyBad:
    seen = summary.pictures + summary.films
    first = "".join(f"\n  {reason}" for reason in summary.reasons)
    return TooManyBad(
        f"{summary.bad} of {counted(seen, 'picture')}{when} could not be used, more than --max-bad {most:g} allows; "
        f"they are in {summary.out}/dead with the reasons. Mend them and give --retry-bad, or go on with a higher "
        f"--max-bad; what is done is kept.{first}"
    )


def _reasons(store: Store, shards: Sequence[int], most: int = 10) -> list[str]:
    """The first pictures that failed."""
    import io

    import pyarrow.parquet as pq

    found: list[str] = []
    for shard in shards[:20]:
        table = pq.read_table(io.BytesIO(store.read(f"dead/dead-{shard:06d}.parquet")), columns=["source", "reason"])
        for source, reason in zip(*(table.column(k).to_pylist() for k in range(2)), strict=True):
            text = reason if source in reason else f"{source}: {reason}"
            if len(found) < most:
                found.append(shown(text)[:300])
    return found
