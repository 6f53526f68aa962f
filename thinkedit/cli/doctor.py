"""`thinkedit doctor`: what a run needs of this machine, and how to mend what it lacks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer

GIB = 1 << 30
# A demo run was measured at 8.5 GB with everything up; docs/install.md.
MEMORY_GIB, SHM_GIB, DISK_GIB, CORES = 10, 1, 5, 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it went, what was seen, and what to do about it."""

    subject: str
    state: Literal["ok", "note", "bad"]  # note: something optional is missing
    seen: str
    mend: str = ""


def doctor(
    run_dir: Annotated[Path, typer.Option(help="Where runs will be written.")] = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the import of vLLM, about 15 s.")] = False,
) -> None:
    """Check Python, packages, cores, memory, GPU, Ray, vLLM and the run folder.

    Exits with code 1 when something that training needs is wrong.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]--[/]", "bad": "[red]!![/]"}
    findings = list(examine(run_dir, quick=quick))
    for finding in findings:
        table.add_row(marks[finding.state], finding.subject, finding.seen)
        if finding.mend:
            table.add_row("", "", f"[dim]{finding.mend}[/]")
    Console().print(table)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


def examine(run_dir: Path, *, quick: bool) -> Iterator[Finding]:
    """All checks, in the order in which they would stop a run."""
    yield python()
    yield base_packages()
    yield training_set()
    yield cores()
    yield memory()
    yield shared_memory()
    yield gpu()
    yield importable("ray")
    yield importable("verl")
    if not quick:
        yield importable("vllm")
    yield free_port()
    yield run_folder(run_dir)


def python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Finding("python", "ok", found)
    return Finding(
        "python", "bad", found, "verl and vLLM are pinned for Python 3.11 and 3.12; use one of them"
    )


def base_packages() -> Finding:
    wrong = unmet_requirements(extra=None)
    if wrong:
        return Finding("packages", "bad", "; ".join(wrong), "pip install thinkedit")
    return Finding("packages", "ok", "environments and rewards: all there")


def training_set() -> Finding:
    """The set that fits this machine: `gpu` where there is an NVIDIA driver, else `cpu`."""
    extra = "gpu" if shutil.which("nvidia-smi") else "cpu"
    wrong = unmet_requirements(extra)
    if not wrong:
        return Finding("training", "ok", f"set {extra} complete")
    mend = f"in a checkout: make setup SET={extra}, or docs/install.md; environments and rewards work without"
    return Finding("training", "bad", f"set {extra} lacks {', '.join(wrong)}", mend)


def unmet_requirements(extra: str | None, package: str = "thinkedit") -> list[str]:
    """Requirements of a package (of one extra of it) that this Python lacks, or has in another version."""
    from packaging.requirements import Requirement

    problems = []
    for text in metadata.requires(package) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        if always != (extra is None) or (marker and not marker.evaluate({"extra": extra or ""})):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(requirement.name)
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            problems.append(f"{requirement.name} {requirement.specifier} (found {found})")
        for inner in requirement.extras:
            problems += unmet_requirements(inner, requirement.name)
    return problems


def cores() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < CORES:
        return Finding(
            "cores", "note", str(count), f"the demo was timed on {CORES}; expect it to take longer"
        )
    return Finding("cores", "ok", str(count))


def memory() -> Finding:
    available = available_memory()
    if available is None:
        return Finding("memory", "note", "can't be read on this system", f"{MEMORY_GIB} GiB are needed")
    seen = f"{available / GIB:.1f} GiB free"
    if available < MEMORY_GIB * GIB:
        return Finding(
            "memory", "bad", seen, f"a run on CPU takes about {MEMORY_GIB} GiB; close other programs"
        )
    return Finding("memory", "ok", seen)


def available_memory() -> int | None:
    """Bytes that programs can still get; None where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def shared_memory() -> Finding:
    path = Path("/dev/shm")
    if not path.exists():
        return Finding("shared memory", "note", "no /dev/shm", "Ray falls back to slower files")
    free = shutil.disk_usage(path).free
    seen = f"{free / GIB:.1f} GiB free in /dev/shm"
    if free < SHM_GIB * GIB:
        return Finding("shared memory", "bad", seen, "in a container, start it with --shm-size=8g")
    return Finding("shared memory", "ok", seen)


def gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("gpu", "note", "none", "use recipes with cluster=cpu, such as demo")
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        return Finding("gpu", "bad", f"nvidia-smi failed: {error}", "check the driver")
    return Finding("gpu", "ok", "; ".join(answer.stdout.strip().splitlines()))


def importable(module: str) -> Finding:
    """Import in a process of its own: some of these change global state, or crash."""
    code = f"import {module}; print({module}.__version__)"
    try:
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return Finding(
            module, "bad", "import did not end within 5 minutes", "is the disk or the machine busy?"
        )
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding(module, "bad", reason, "install one of the complete sets: docs/install.md")
    return Finding(module, "ok", answer.stdout.strip().splitlines()[-1])


def free_port() -> Finding:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            probe.listen()
            with socket.create_connection(probe.getsockname(), timeout=5):
                return Finding("network", "ok", "processes can talk over 127.0.0.1")
    except OSError as error:
        return Finding(
            "network", "bad", str(error), "Ray and vLLM talk over 127.0.0.1; a sandbox may forbid it"
        )


def run_folder(run_dir: Path) -> Finding:
    nearest = next(folder for folder in (run_dir.absolute(), *run_dir.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return Finding("run folder", "bad", f"{nearest}: {error}", "choose another one with run_dir=PATH")
    free = shutil.disk_usage(nearest).free
    seen = f"{free / GIB:.1f} GiB free in {nearest}"
    if free < DISK_GIB * GIB:
        return Finding("run folder", "bad", seen, f"a run with checkpoints takes up to {DISK_GIB} GiB")
    return Finding("run folder", "ok", seen)
