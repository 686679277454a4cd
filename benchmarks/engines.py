"""Where jobs run: as processes of this machine, or as tasks of a Ray cluster, behind the same three calls."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import PACKAGE, PROJECT
from textgan_env.utils.errors import InputError, MissingDataError

KILLED = -9
_STARTS = 3  # of a Ray cluster, before we give up


def start_process(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the process of a job; it ends when this process does (see `benchmarks.jobs.end_with_parent`)."""
    # One thread a process: jobs side by side slow one another down otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (folder / "log.txt").open("ab") as log:
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": log, "stderr": subprocess.STDOUT}
        command = [sys.executable, "-m", f"{PACKAGE}.jobs", str(folder.absolute())]
        where = PROJECT if PACKAGE == "benchmarks" else None  # an installed package is found from anywhere
        return subprocess.Popen(command, cwd=where, env=environment, **streams)


class LocalEngine:
    """Processes of this machine."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, folder: Path) -> "subprocess.Popen[bytes]":
        """Begin with a job; returns what the other calls know it by."""
        self.running.append(start_process(folder))
        return self.running[-1]

    def ended(self, job: "subprocess.Popen[bytes]") -> int | None:
        """The exit code of a job, negative where a signal killed it; None while it runs."""
        return job.poll()

    def close(self) -> None:
        """Kill what runs; what it has written is whole."""
        for process in self.running:
            process.kill()
        for process in self.running:
            with contextlib.suppress(OSError), process:  # closes its standard input, and waits
                pass


class RayEngine:
    """Tasks of a Ray cluster; the suite's folder must be on a disk that all its machines share.

    Args:
        address: Of a running cluster, as `ray.init` takes it; None: start one on this machine.
        parallel: Jobs at once, where one is started here.
        gpus: GPUs of a job.

    Raises:
        MissingDataError: If Ray is not installed.
        InputError: If the cluster does not answer.
    """

    def __init__(self, address: str | None, parallel: int, gpus: int) -> None:
        try:
            import ray
        except ImportError:
            raise MissingDataError("--engine ray needs the package ray: pip install 'textgan-env[ray]'") from None
        self.ray: Any = ray
        settings: dict[str, Any] = {} if address else {"num_cpus": parallel, "include_dashboard": False}
        settings |= {"log_to_driver": False}
        if PACKAGE == "benchmarks":
            settings |= {"runtime_env": {"env_vars": {"PYTHONPATH": str(PROJECT)}}}
        for tries_left in reversed(range(_STARTS)):
            try:
                ray.init(address=address, **settings)
                break
            except Exception as error:  # Ray raises a bare one where a busy machine keeps it waiting for 30 seconds
                ray.shutdown()
                if not tries_left:
                    where = f"at '{address}' does not answer" if address else "does not start here"
                    raise InputError(f"a Ray cluster {where}: {str(error).strip().splitlines()[0]}") from None
        # A killed worker is reported by the suite, which starts the job again: Ray itself shall not.
        self.remote: Callable[[str], Any] = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run_remotely).remote

    def start(self, folder: Path) -> Any:
        """Begin with a job."""
        return self.remote(str(folder))

    def ended(self, job: Any) -> int | None:
        """Its exit code; `KILLED` where its worker or machine is gone."""
        done, _ = self.ray.wait([job], timeout=0)
        if not done:
            return None
        try:
            return int(self.ray.get(job))
        except self.ray.exceptions.RayError:
            return KILLED

    def close(self) -> None:
        """Leave the cluster: jobs that run end with their workers."""
        self.ray.shutdown()


def _run_remotely(folder: str) -> int:
    """What a worker of Ray does: the same process as on this machine."""
    return start_process(Path(folder)).wait()
