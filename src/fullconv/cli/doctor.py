"""Whether this installation can work, and what makes it slow: found out by looking and by trying.

Works where torch is missing or broken. Each finding has a line to paste.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fullconv.cli.app import Json, app, print_result
from fullconv.core.errors import FullconvError
from fullconv.core.files import cache_dir
from fullconv.core.hardware import (
    container_cpu_limit,
    cpu_cores,
    find_cpp_compiler,
    free_disk_space,
    memory_size,
)
from fullconv.core.packages import (
    EXTRAS,
    NEEDS,
    __version__,
    installed_version,
    required_version,
    satisfies,
)
from fullconv.core.text import plural
from fullconv.network.kernels.library import load_library

GIB = 2**30
_KERNELS, _THREADS = "FULLCONV_KERNELS", "OMP_NUM_THREADS"
_MATCH = "torch_and_torchvision_match"
_IDLE_GPU = Path("/dev/nvidia0")
_SHARED = Path("/dev/shm")
_REBUILD = "pip install --force-reinstall --no-deps --editable CLONE"


@dataclass(frozen=True)
class Finding:
    """What is broken, or may become so (warning), or is slow; and a line that mends it."""

    level: Literal["broken", "warning", "slow"]
    message: str
    line: str


@dataclass
class Health:
    """What was found.

    Attributes:
        facts: JSON-able, by subject.
        findings: the worst first once all is examined.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether something cannot work at all."""
        return any(one.level == "broken" for one in self.findings)

    def add(self, level: Literal["broken", "warning", "slow"], message: str, line: str) -> None:
        self.findings.append(Finding(level, message, line))

    def to_dict(self) -> dict[str, Any]:
        findings = [asdict(one) for one in self.findings]
        return {**self.facts, "broken": self.broken, "findings": findings}

    def text(self) -> str:
        """As a person reads it."""
        rows = [("fullconv", self.facts["fullconv"]), ("python", self.facts["python"]["said"])]
        rows += [(name, version or "-") for name, version in self.facts["packages"].items()]
        lines = [f"{name:<17}{version}" for name, version in rows]
        if self.facts[_MATCH] is not None:
            match = "match" if self.facts[_MATCH] else "do not match"
            lines.insert(4, f"{'':<17}torch and torchvision {match}")
        lines += [f"{'device':<17}{one['said']}" for one in self.facts["devices"]]
        lines += [f"{'kernels':<17}{name}: {why}" for name, why in self.facts["kernels"].items()]
        lines += [f"{'compiler':<17}{self.facts['compiler'] or 'none'}", *self._sizes()]
        lines += [
            f"{f'[{extra}]':<17}installed"
            if one["installed"]
            else f"{f'[{extra}]':<17}not here: {one['line']}"
            for extra, one in self.facts["extras"].items()
        ]
        for one in self.findings:
            lines += ["", f"{one.level}: {one.message}", f"  try: {one.line}"]
        if not self.broken:
            lines += ["", "nothing is broken"]
        return "\n".join(lines)

    def _sizes(self) -> list[str]:
        found = self.facts["memory"]
        free, total = _size(found["available"]), _size(found["total"])
        return [
            f"{'memory':<17}{free} of {total} available",
            *(
                f"{'disk':<17}{_size(place['free'])} free in {place['folder']} ({what})"
                for what, place in self.facts["disk"].items()
            ),
        ]


def examine() -> Health:
    """Looks at everything; takes the seconds that importing torch takes."""
    health = Health()
    system = f"{platform.system()} {platform.machine()}"
    said = f"{platform.python_version()}, {sys.executable}, {system}"
    health.facts["fullconv"] = __version__
    health.facts["python"] = {"version": platform.python_version(), "said": said}
    _packages(health)
    _extras(health)
    torch = _torch(health)
    _devices(health, torch)
    _kernels(health, torch)
    _threads(health, torch)
    _space(health)
    order = ("broken", "warning", "slow")
    health.findings.sort(key=lambda one: order.index(one.level))
    return health


def _packages(health: Health) -> None:
    """Versions, and whether those of torch and torchvision belong together."""
    found = {name: installed_version(name) for name in NEEDS}
    health.facts["packages"] = found
    gone = [name for name in NEEDS if found[name] is None]
    if gone:
        verb = "is" if len(gone) == 1 else "are"
        more = "; without torch only exported files are predicted with and served"
        health.add(
            "broken",
            f"{', '.join(gone)} {verb} not installed{more * ('torch' in gone)}.",
            " ".join(["pip install", *(f'"{name}>={NEEDS[name]}"' for name in gone)]),
        )
    for name, least in NEEDS.items():
        version = found[name]
        if version and not satisfies(version, f">={least}"):
            message = f"{name} is {version}; Fullconv needs {least} or newer."
            health.add("broken", message, f'pip install --upgrade "{name}>={least}"')
    torch, vision = found["torch"], found["torchvision"]
    bounds = required_version("torchvision", "torch")
    health.facts[_MATCH] = match = satisfies(torch, bounds) if torch and vision else None
    if torch and vision and not match:
        health.add(
            "broken",
            f"torch {torch} and torchvision {vision} do not belong together: that torchvision "
            f"needs torch {bounds}.",
            f'pip install --upgrade "torch=={torch.partition("+")[0]}" torchvision',
        )


def _extras(health: Health) -> None:
    """Which are here, and what installs the others."""
    health.facts["extras"] = {}
    for extra, parts in EXTRAS.items():
        gone = [
            name
            for name, least in parts.items()
            if not satisfies(installed_version(name) or "0", f">={least}")
        ]
        line = " ".join(["pip install", *(f'"{name}>={least}"' for name, least in parts.items())])
        health.facts["extras"][extra] = {"installed": not gone, "missing": gone, "line": line}


def _torch(health: Health) -> Any:
    """The module, where it and torchvision can be used; else None."""
    try:
        import torch
    except Exception as error:  # a library that it links is gone, or is another one
        if health.facts["packages"]["torch"]:
            message = f"torch is installed and cannot be imported: {_first_line(error)}"
            health.add("broken", message, "pip install --force-reinstall torch torchvision")
        return None
    health.facts["packages"]["torch"] = torch.__version__
    if health.facts[_MATCH]:
        try:
            from torchvision.ops import nms  # compiled against torch, so it shows whether they fit

            nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        except Exception as error:
            health.facts[_MATCH] = False
            health.add(
                "broken",
                f"torch {torch.__version__} and torchvision "
                f"{health.facts['packages']['torchvision']} do not work together: "
                f"{_first_line(error)}",
                "pip install --force-reinstall torch torchvision",
            )
    return torch


def _devices(health: Health, torch: Any) -> None:
    """Where networks run, and whether a GPU lies idle."""
    count = cpu_cores()
    health.facts["cores"] = count
    health.facts["devices"] = [{"name": "cpu", "said": f"CPU, {plural(count, 'core')}"}]
    if torch is None:
        return
    from fullconv.inference.runtime import computes_in_bfloat16

    quick = computes_in_bfloat16(torch.device("cpu"))
    cpu = health.facts["devices"][0] | {"bfloat16": quick}
    cpu["said"] += ", with bfloat16 instructions" if quick else ", no bfloat16 instructions"
    health.facts["devices"] = [cpu]
    for number in range(torch.cuda.device_count()):
        one = torch.cuda.get_device_properties(number)
        said = f"{one.name}, {_size(one.total_memory)}, {torch.version.cuda or torch.version.hip}"
        facts = {"name": f"cuda:{number}", "said": said, "memory": one.total_memory}
        health.facts["devices"].append(facts)
    if len(health.facts["devices"]) > 1:
        return
    if _IDLE_GPU.exists():
        why = "is built without CUDA" if not torch.version.cuda else "cannot use it"
        line = "pip install --force-reinstall torch torchvision"
        health.add(
            "slow",
            f"there is an NVIDIA GPU, but torch {torch.__version__} {why}.",
            line if not torch.version.cuda else "nvidia-smi   # is its driver new enough?",
        )
    elif not quick:
        health.add(
            "slow",
            "this processor has no bfloat16 instructions and there is no GPU: models run in "
            "float32.",
            "fullconv predict MODEL IMAGES --compile   # faster, after up to a minute",
        )


def _kernels(health: Health, torch: Any) -> None:
    """Which way losses and label maps are computed, tried out on each kind of device."""
    asked = os.environ.get(_KERNELS, "")
    library, why = load_library()
    health.facts["compiler"] = find_cpp_compiler()
    health.facts["kernels"] = said = {}
    if torch is None:
        compiled = library is not None and asked != "reference"
        said["cpu"] = "native (compiled C++)" if compiled else "NumPy, which is slower"
    for device in _kinds(torch, asked):
        try:
            said[device] = _tried(torch, device, compiled=library is not None)
        except FullconvError as error:
            said[device] = "none"
            health.add("broken", error.message, error.hint)
        except Exception as error:  # a compiler's, a driver's
            said[device] = "none"
            message = f"label maps cannot be computed on {device}: {_first_line(error)}"
            health.add("broken", message, f"export {_KERNELS}=reference")
    if asked == "reference":
        message = f"{_KERNELS}=reference: torch computes losses and label maps."
        health.add("slow", message, f"unset {_KERNELS}")
    elif library is None:
        line = _REBUILD if health.facts["compiler"] else f"sudo apt install g++ && {_REBUILD}"
        message = f"there are no compiled kernels ({why}): torch computes losses and label maps."
        health.add("slow", message, line)
    elif said.get("cpu", "").endswith("baseline"):
        health.add(
            "slow",
            "this processor has neither AVX2 nor AVX-512, or a virtual machine hides them.",
            "grep -m1 -o avx2 /proc/cpuinfo   # says nothing: give the machine its host's CPU type",
        )


def _kinds(torch: Any, asked: str) -> list[str]:
    if torch is None:
        return []
    gpu = ["cuda"] * torch.cuda.is_available()
    return gpu if gpu and asked == "triton" else ["cpu", *gpu]


def _tried(torch: Any, device: str, *, compiled: bool) -> str:
    """The way that a label map was computed, in words.

    Raises:
        FullconvError: that which is asked for cannot run.
    """
    from fullconv.geometry.grid import Grid
    from fullconv.network.kernels import dispatch, native, reference

    values = torch.zeros(1, 2, 2, 2, device=device)
    asked = os.environ.get(_KERNELS, "")
    silent = device == "cpu" and not asked and not compiled  # or its absence would be told twice
    way = reference if silent else dispatch.select_backend(values)
    way.labels(values, Grid(8, 0, 1), (8, 8))
    if way is native:
        return f"native, compiled C++ with {native.instructions()}"
    if way is reference:
        return f"reference, plain torch, since {_KERNELS} says so" if asked else "reference, torch"
    return "triton"


def _threads(health: Health, torch: Any) -> None:
    """Whether as many threads compute as there are processors for them."""
    count, share = health.facts["cores"], container_cpu_limit()
    health.facts["threads"] = now = torch.get_num_threads() if torch else None
    if now is None:
        return
    health.facts["devices"][0]["said"] += f", {plural(now, 'thread')}"
    chosen = os.environ.get(_THREADS, "")
    if chosen and now < count:
        health.add(
            "slow",
            f"{_THREADS}={chosen}: networks run in {plural(now, 'thread')} on "
            f"{plural(count, 'core')}.",
            f"unset {_THREADS}",
        )
    elif now == 1 < count:
        message = f"networks run in one thread, though there are {count} cores."
        health.add("slow", message, f"export {_THREADS}={count}")
    elif share is not None and now > count:
        health.add(
            "slow",
            f"{now} threads share the {share:g} processors that this container may use.",
            f"export {_THREADS}={count}",
        )


def _space(health: Health) -> None:
    """Memory and disks."""
    found = memory_size()
    health.facts["memory"] = asdict(found)
    if found.available is not None and found.available < 2 * GIB:
        health.add(
            "warning",
            f"only {_size(found.available)} of memory are available.",
            "fullconv train DATA --batch-size 2 --workers 0 --cache 0   # takes little",
        )
    health.facts["disk"] = {}
    for name, where in (("this folder", Path.cwd), ("cache", cache_dir)):
        with suppress(OSError, RuntimeError):  # a folder that was removed, a user without a home
            folder = where()
            left = free_disk_space(folder)
            health.facts["disk"][name] = {"folder": str(folder), "free": left}
            if left < GIB:
                message = f"only {_size(left)} of disk are free in {folder} ({name})."
                line = "XDG_CACHE_HOME=/another/disk" if name == "cache" else "cd /another/disk"
                health.add("warning", message, f"{'export ' * (name == 'cache')}{line}")
    if _SHARED.is_dir() and (left := free_disk_space(_SHARED)) < GIB / 4:
        health.add(
            "warning",
            f"only {_size(left)} of shared memory are free: the processes that read images pass "
            "them on through it.",
            "docker run --shm-size 2g ...   # or: fullconv train DATA --workers 0",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / GIB:.1f} GiB"


@app.command(sort_key=11)
def doctor(*, json: Json = False) -> int:
    """Say whether this installation works, what makes it slow, and the lines that mend it. Exit
    code 1 where something is broken.

    Parameters
    ----------
    json
        Print one JSON object and nothing else.
    """

    health = examine()
    ahead = "" if health.broken else "fullconv check DATA   # or: fullconv demo"
    print_result(health.to_dict(), health.text(), json, ahead=ahead)
    return int(health.broken)
