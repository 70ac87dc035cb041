"""A Slurm of one node with two processors on this machine, for as long as a test needs it."""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
CONFIG = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthInfo=socket={folder}/munge,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=0
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
NodeName=here NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=5
PartitionName=high Nodes=ALL PriorityTier=2
"""
"""Jobs in ``high`` pre-empt those in ``low``: what these asked to be sent at the end, the time to finish, and requeue.

``cred_expire`` is the wait of requeued jobs, by default two minutes; Slurm ignores less than 5 s.
"""


def missing() -> list[str]:
    """Programs of Slurm that this machine lacks; Debian has those of daemons outside an ordinary user's path."""
    return [name for name in PROGRAMS if _found(name) is None]


@contextlib.contextmanager
def slurm_here() -> Iterator[dict[str, str]]:
    """Start the daemons and give the variables with which its commands reach them; stop them, and all jobs, at the end.

    Nothing is written outside a folder that is removed.
    """
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:  # not tmp_path: the path of a socket must be short
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        (folder / "key").write_bytes(secrets.token_bytes(32))
        (folder / "key").chmod(0o600)
        config, variables = folder / "slurm.conf", {"SLURM_CONF": f"{folder}/slurm.conf"}
        ports = dict(zip(("controller", "node"), _free_ports(2), strict=True))
        config.write_text(CONFIG.format(host=socket.gethostname(), user=getpass.getuser(), folder=folder, **ports))

        def start(program: str, *arguments: str) -> None:
            with (folder / f"{program}.txt").open("wb") as output:
                command = [_found(program) or program, *arguments]
                environment = {**os.environ, **variables}
                started.append(subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT))

        try:
            paths = {"key-file": "key", "socket": "munge", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
            start("munged", "--foreground", "--force", *(f"--{key}={folder / path}" for key, path in paths.items()))
            wait_until(lambda: (folder / "munge").exists(), "munged")
            start("slurmctld", "-D", "-i")
            start("slurmd", "-D", "-N", "here")
            try:
                wait_until(lambda: "idle" in said(["sinfo", "--noheader"], variables), "the node")
            except TimeoutError as error:
                logs = [path.read_text(errors="replace")[-2000:] for path in folder.glob("*.txt")]
                raise TimeoutError("\n".join([str(error), *logs])) from None
            yield variables
        finally:
            if len(started) == 3:
                said(["scancel", "--user", getpass.getuser()], variables)
                with contextlib.suppress(TimeoutError):
                    wait_until(lambda: not said(["squeue", "--noheader"], variables), "the jobs", 60)
            for process in reversed(started):
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def said(command: list[str], variables: dict[str, str]) -> str:
    """The output of one of Slurm's commands; empty if it fails."""
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 600) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it does not come true in time.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.3)


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
