"""Another sitting for a Slurm job whose time ends. Imports nothing heavy: a job may end while PyTorch is loading."""

from __future__ import annotations

import os
import signal
import subprocess


def requeue(number: int = signal.SIGUSR1) -> str:
    """Ask Slurm to run this job again, which then goes on where it was saved: what came of it, "" without Slurm.

    number: the signal that stopped the run. SIGTERM is a warning (of preemption, say) while the job still runs; when
    Slurm is ending the job already, `scancel` or Slurm itself has decided what becomes of it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return ""
    if number == signal.SIGTERM and "JobState=RUNNING" not in _scontrol("show", "job", job).stdout:
        return f"Slurm is ending job {job}, which is not requeued; the same command with this --out goes on"
    asked = _scontrol("requeue", job)
    if asked.returncode:
        return f"Slurm did not requeue job {job}: {asked.stderr.strip()}"
    return f"Slurm job {job} is requeued"


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True)
