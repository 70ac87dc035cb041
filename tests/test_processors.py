"""How many processors count: those of the scheduler's mask, within a container's limit."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from itmbench import processors as module
from itmbench.cli.main import main
from itmbench.processors import loaders, processors


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        (None, 6),
        ("max 100000", 6),
        ("400000 100000", 4),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("900000 100000", 6),
    ],
)
def test_mask_and_limit_count_and_not_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, count: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(module, "QUOTA", tmp_path / "cpu.max")
    if limit is not None:
        module.QUOTA.write_text(limit + "\n")
    assert processors() == count


def test_a_system_without_masks_counts_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(module, "QUOTA", tmp_path / "none")
    assert processors() == 3


def test_programs_share_the_loader_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, shares in ((1, {1: 0, 4: 0}), (16, {1: 8, 2: 7, 4: 3, 8: 1, 16: 0, 32: 0})):
        monkeypatch.setattr(module, "processors", lambda available=available: available)
        assert {processes: loaders(processes) for processes in shares} == shares


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept() -> None:
    """Of blocks that are taken and freed again and again the system clears the pages once."""
    script = (
        "import resource, sys; from itmbench.processors import keep_memory\n"
        "if sys.argv[1] == 'keep': keep_memory()\n"
        "for _ in range(10): blocks = [bytearray(20 << 20) for _ in range(4)]; del blocks\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
    )
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", script, how], capture_output=True, check=True).stdout)
        for how in ("keep", "return")
    )
    assert kept * 3 < returned


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "avoided"),
    [
        ("AuthenticAMD", 25, "avx2 avx512f avx512vl", True),
        ("AuthenticAMD", 25, "avx2", False),  # Zen 3
        ("AuthenticAMD", 26, "avx2 avx512f", False),  # Zen 5
        ("GenuineIntel", 6, "avx2 avx512f", False),
    ],
)
def test_only_zen_4_sorts_without_avx512(
    vendor: str, family: int, flags: str, avoided: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    processor = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 25\nflags\t\t: {flags}\n\n"
    module.CPUINFO.write_text("processor\t: 0\n" + processor + "processor\t: 1\n" + processor)
    monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", "")
    monkeypatch.delenv("NPY_DISABLE_CPU_FEATURES")
    assert main(["--version"]) == 0
    assert ("X86_V4" in os.environ.get("NPY_DISABLE_CPU_FEATURES", "")) is avoided
    monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", "AVX512_SPR")
    main(["--version"])
    assert os.environ["NPY_DISABLE_CPU_FEATURES"] == "AVX512_SPR"


def test_the_command_line_chooses_before_numpy_is_imported() -> None:
    subprocess.run(
        [sys.executable, "-c", "import itmbench.cli.main, sys; assert 'numpy' not in sys.modules"], check=True
    )
