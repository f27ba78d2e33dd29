"""What `wholebody serve` is asked for. Its fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass

from wholebody.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where the page is served, and how much each of its users may ask for."""

    host: str = "127.0.0.1"
    """address to listen at; 0.0.0.0 lets other machines in"""
    port: int = 7860
    """0: any free one"""
    path: str = "/"
    """serve below this path, such as /bodies, where a proxy passes it on; one that takes it away needs nothing"""
    max_mb: int = 200
    """largest file, in megabytes"""
    max_seconds: float = 60.0
    """longest film"""
    max_waiting: int = 8
    """jobs that wait or are being sent; more are turned away"""
    job_minutes: float = 30.0
    """a job that takes longer is ended"""
    keep_minutes: float = 60.0
    """results, and what was sent, are deleted after so long"""
    model: str = "t"
    """as for predict"""
    body: str | None = None
    """as for predict"""
    device: str = "auto"
    """as for predict"""

    def __post_init__(self) -> None:
        for name in ("max_mb", "max_seconds", "max_waiting", "job_minutes", "keep_minutes"):
            if not getattr(self, name) > 0:
                raise BadInput(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be over 0.")
        if not 0 <= self.port < 65536:
            raise BadInput(f"--port is {self.port}; it must be from 0 to 65535.")
        if not self.path.startswith("/"):
            raise BadInput(f"--path is {self.path!r}; it must begin with a slash.")

    @property
    def prefix(self) -> str:
        """The path without its last slash; empty at the top."""
        return self.path.rstrip("/")
