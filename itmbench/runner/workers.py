"""Several runners of one benchmark, a device each: on this machine, or as jobs of Slurm."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from itmbench import store
from itmbench.errors import InputError
from itmbench.runner.child import Child, end_with_parent, forget_launcher

PATIENCE = 20.0
"""Seconds that runners have to end by themselves when they are interrupted."""
SLURM = """#!/bin/bash
#SBATCH --ntasks=1 --cpus-per-task={cpus}{gpus}
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
            runners.append(Child(__name__, [json.dumps(asked), "--child"], own, f"{number} | "))
        for each in runners:
            each.wait()
    finally:
        for each in runners:
            each.tell()
        for each in runners:
            each.end(PATIENCE)


def submit(asked: dict[str, Any], name: str, count: int, gpus: int, cpus: int) -> str:
    """Submit an array of so many jobs to Slurm, a runner each; what else they need, ``SBATCH_...`` variables say.

    Args:
        asked: arguments of ``runner.work``; the results folder is on a disk that all machines share.
        name: of the benchmark.
        count: how many jobs.
        gpus: of a job.
        cpus: of a job.

    Returns:
        The number of the job.

    Raises:
        InputError: there is no Slurm here, or it takes no such job.
    """
    log = (Path(asked["root"]) / store.RUNNING).resolve()
    log.mkdir(parents=True, exist_ok=True)
    script = SLURM.format(
        cpus=cpus,
        gpus=f" --gpus-per-task={gpus}" if gpus else "",
        here=shlex.quote(os.getcwd()),
        command=shlex.join([sys.executable, "-m", __name__, json.dumps(asked)]),
    )
    output = f"{str(log).replace('%', '%%')}/slurm-%A-%a.txt"
    options = ["--parsable", f"--job-name=itmbench-{name}", f"--array=0-{count - 1}", f"--output={output}"]
    try:
        done = subprocess.run(["sbatch", *options], input=script, capture_output=True, text=True, check=True)
    except OSError as error:
        raise InputError(
            f"--launcher slurm: no sbatch can be called here ({error.strerror}); do it on a machine that submits jobs"
        ) from error
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


def main(asked: str, *child: str) -> int:
    """A runner: a child of ``run_here``, or a job."""
    from itmbench.runner.run import work

    if child:
        end_with_parent()
    forget_launcher()
    try:
        work(**json.loads(asked))
    except InputError as error:
        print(f"itmbench: {error}", flush=True)
        return 2
    except KeyboardInterrupt:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
