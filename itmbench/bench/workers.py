"""Several runners of one benchmark, a device each: on this machine, or as jobs of Slurm."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from itmbench.bench import store
from itmbench.bench.child import Child, end_with_parent
from itmbench.errors import InputError

SLURM = """#!/bin/bash
#SBATCH --job-name=itmbench-{name}
#SBATCH --array=0-{last}
#SBATCH --ntasks=1{gpus}
#SBATCH --output={log}/slurm-%A-%a.txt
#SBATCH --signal=B:TERM@60
cd {here}
exec {command}
"""


def run_here(asked: dict[str, Any], count: int, gpus: int) -> None:
    """Run so many runners side by side, until all have ended; what a runner that is killed leaves is left.

    Args:
        asked: arguments of ``runner.work``.
        count: how many.
        gpus: that this machine has for them, one each; without any they share the processors.

    Raises:
        InputError: there are fewer GPUs.
    """
    if 0 < gpus < count:
        raise InputError(f"--devices {count}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}")
    runners: list[Child] = []
    try:
        for number, own in enumerate(variables(count, gpus)):
            runners.append(Child(__name__, [json.dumps(asked)], os.environ | own, f"{number} | "))
        for each in runners:
            each.wait()
    finally:
        for each in runners:
            each.tell()
        for each in runners:
            each.end()


def submit(asked: dict[str, Any], name: str, count: int, gpus: int) -> str:
    """Submit an array of so many jobs to Slurm, a runner each; what else they need, ``SBATCH_...`` variables say.

    Args:
        asked: arguments of ``runner.work``; the results folder is on a disk that all machines share.
        name: of the benchmark.
        count: how many jobs.
        gpus: of a job.

    Returns:
        The number of the job.

    Raises:
        InputError: there is no Slurm here, or it takes no such job.
    """
    flags = [flag for flag, name in (("--force", "force"), ("--retry-failed", "retry_failed")) if asked[name]]
    command = [asked["spec"], f"--results={asked['root']}", f"--only={asked['only']}", *flags]
    log = (Path(asked["root"]) / store.RUNNING).resolve()
    log.mkdir(parents=True, exist_ok=True)
    script = SLURM.format(
        name=name,
        last=count - 1,
        gpus=f"\n#SBATCH --gpus-per-task={gpus}" if gpus else "",
        log=log,
        here=shlex.quote(os.getcwd()),
        command=shlex.join([sys.executable, "-m", "itmbench", "bench", *command]),
    )
    try:
        done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise InputError("--launcher slurm: there is no sbatch here; call it on a machine that submits jobs") from None
    except subprocess.CalledProcessError as error:
        raise InputError(f"--launcher slurm: {' '.join(error.stderr.split())}") from error
    return done.stdout.strip().partition(";")[0]


def variables(count: int, gpus: int) -> list[dict[str, str]]:
    """What each runner sees: its GPU, or its share of the processors unless that is set."""
    if not gpus:
        threads = str(max(1, (os.cpu_count() or 1) // count))
        return [{} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": threads}] * count
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names[:count]]


def main(asked: str) -> int:
    """A runner that ``run_here`` has started."""
    from itmbench.bench.runner import work

    end_with_parent()
    try:
        work(**json.loads(asked))
    except KeyboardInterrupt:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
