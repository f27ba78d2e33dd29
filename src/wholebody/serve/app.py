"""The web server: one page, and jobs by keys that cannot be guessed.

All addresses in the page are relative, so it works below any path; files are served by the names that a job lists,
never by a path.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from wholebody.errors import AssetMissing
from wholebody.output.look import LOOKS
from wholebody.serve.config import ServeConfig
from wholebody.serve.jobs import Full, Job, Jobs, Work

if TYPE_CHECKING:
    from starlette.applications import Starlette

_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_KINDS = {
    ".html": "text/html", ".jpg": "image/jpeg", ".mp4": "video/mp4", ".json": "application/json",
    ".txt": "text/plain", ".glb": "model/gltf-binary",
}  # fmt: skip
# Seconds for which the rest of a refused upload is read and dropped.
_LINGER = 30.0


def make_app(jobs: Jobs, config: ServeConfig) -> Starlette:
    """The application; `jobs` outlives it."""
    from anyio import move_on_after  # Starlette's own ground
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
    from starlette.routing import Mount, Route

    def problem(status: int, text: str) -> JSONResponse:
        return JSONResponse({"problem": text}, status, headers=_SAFE)

    gone = "This job does not exist (any more): results are deleted after a time."
    limit = config.max_mb * 1_000_000

    async def page(request: Request) -> Response:
        text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        about = f"up to {config.max_mb} MB, films up to {config.max_seconds:g} seconds"
        text = text.replace("{{LIMITS}}", about).replace("{{KEPT}}", f"{config.keep_minutes:g}")
        return HTMLResponse(text, headers=_SAFE | {"Content-Security-Policy": _POLICY})

    async def send(request: Request) -> Response:
        chunks = request.stream()
        answer = await take(request, chunks)
        # A browser that is still sending when the connection ends shows no answer but "connection reset".
        with move_on_after(_LINGER), contextlib.suppress(ClientDisconnect):
            async for _ in chunks:
                pass
        return answer

    async def take(request: Request, chunks: AsyncIterator[bytes]) -> Response:
        # A header of our own: a page of another site cannot add it, so it cannot send jobs in a visitor's name.
        name = request.headers.get("x-file-name")
        look = request.headers.get("x-look", "clothed")
        if name is None or look not in LOOKS:
            return problem(400, "A file comes with the headers X-File-Name and X-Look (clothed or mannequin).")
        too_large = f"The file is larger than {config.max_mb} MB, which is all that this server takes."
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            return problem(413, too_large)
        try:
            job = jobs.begin(unquote(name), look)
        except Full:
            return problem(503, f"{config.max_waiting} jobs are waiting already. Try again in some minutes.")
        size = 0
        try:
            with open(job.upload, "xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        break
                    file.write(chunk)
        except (ClientDisconnect, OSError):
            jobs.remove(job.key)
            return problem(507, "The file could not be stored. Try again later.")
        if size > limit or size == 0:
            jobs.remove(job.key)
            return problem(413, too_large) if size else problem(400, "The file is empty.")
        jobs.submit(job)
        return JSONResponse({"job": job.key}, 202, headers=_SAFE)

    def found(request: Request) -> Job | None:
        return jobs.get(request.path_params["key"])

    async def look_at(request: Request) -> Response:
        job = found(request)
        return problem(404, gone) if job is None else JSONResponse(jobs.about(job), headers=_SAFE)

    async def delete(request: Request) -> Response:
        if request.headers.get("x-file-name") is None:
            return problem(400, "Deleting needs the header X-File-Name.")
        jobs.remove(request.path_params["key"])
        return Response(status_code=204, headers=_SAFE)

    async def fetch(request: Request) -> Response:
        job = found(request)
        path = None if job is None else job.files.get(request.path_params["name"])
        if path is None or not path.is_file():
            return problem(404, gone)
        kind = _KINDS.get(path.suffix, "application/octet-stream")
        shown = path.suffix == ".html" and "download" not in request.query_params
        # Results are shown in a frame without rights: it may run its own program and nothing else.
        frame = {"Content-Security-Policy": "sandbox allow-scripts"} if path.suffix == ".html" else {}
        return FileResponse(
            path, media_type=kind, filename=path.name, headers=_SAFE | frame,
            content_disposition_type="inline" if shown else "attachment",
        )  # fmt: skip

    routes = [
        Route("/", page),
        Route("/jobs", send, methods=["POST"]),
        Route("/jobs/{key}", look_at, methods=["GET"]),
        Route("/jobs/{key}", delete, methods=["DELETE"]),
        Route("/jobs/{key}/{name}", fetch),
    ]
    if not config.prefix:
        return Starlette(routes=routes)

    async def into(request: Request) -> Response:
        return RedirectResponse(f"{config.prefix}/")

    return Starlette(routes=[Route(config.prefix, into), Mount(config.prefix, routes=routes)])


def serve(config: ServeConfig, make_work: Callable[[], Work], say: Callable[[str], object] = print) -> None:
    """Serve until interrupted; then everything that was sent and made is deleted."""
    try:
        import uvicorn
    except ImportError as error:
        raise AssetMissing(
            f"The web server is an extra that is not installed (no module {error.name}): "
            "pip install '.[serve]'."
        ) from error
    with tempfile.TemporaryDirectory(prefix="wholebody-serve-") as folder, contextlib.ExitStack() as at_end:
        jobs = Jobs(Path(folder), config, make_work)
        at_end.callback(jobs.close)
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(jobs, config), config.host, config.port, log_level="warning", server_header=False,
                timeout_graceful_shutdown=3,
            )
        )  # fmt: skip
        say(f"open http://{config.host}:{config.port}{config.prefix}/ in a browser; Ctrl-C ends it")
        server.run()
