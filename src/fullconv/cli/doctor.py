"""The command that examines the installation: doctor.

It works if torch is missing or broken. Each finding has a line to paste.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fullconv.cli.app import ANALYSIS, Json, app, print_result
from fullconv.cli.health import GIB, LEVELS, MATCH, Health, format_size
from fullconv.core.errors import FullconvError
from fullconv.core.files import cache_dir
from fullconv.core.hardware import (
    container_cpu_limit,
    cpu_cores,
    find_cpp_compiler,
    free_disk_space,
    memory_size,
)
from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.packages import __version__, extras, installed_version, requirements, satisfies
from fullconv.core.text import first_line
from fullconv.network.kernels.library import load_library

_KERNELS, _THREADS = "FULLCONV_KERNELS", "OMP_NUM_THREADS"
_NVIDIA_DEVICE = Path("/dev/nvidia0")
_SHARED_MEMORY = Path("/dev/shm")
_REINSTALL_TORCH = "pip install --force-reinstall torch torchvision"
_REBUILD = "pip install --force-reinstall --no-deps --editable CLONE"


def examine() -> Health:
    """Examine everything; takes the seconds that importing torch takes."""
    health = Health()
    description = f"{platform.python_version()}, {sys.executable}, "
    description += f"{platform.system()} {platform.machine()}"
    health.facts["fullconv"] = __version__
    health.facts["python"] = {"version": platform.python_version(), "description": description}
    _examine_packages(health)
    torch = _import_torch(health)
    _examine_devices(health, torch)
    _examine_kernels(health, torch)
    _examine_threads(health, torch)
    _examine_space(health)
    health.findings.sort(key=lambda finding: list(LEVELS).index(finding.level))
    return health


def _examine_packages(health: Health) -> None:
    required = requirements("fullconv") or {"torch": "", "torchvision": ""}
    versions = {name: installed_version(name) for name in required}
    health.facts["packages"] = versions

    if missing := [name for name in required if versions[name] is None]:
        names = ", ".join(missing)
        message = nmsg(
            "{names} is not installed.", "{names} are not installed.", len(missing), names=names
        )
        if "torch" in missing:
            why = msg(
                "Without torch, Fullconv can only predict with exported files and serve them."
            )
            message = join([message, why], " ")
        install = " ".join(["pip install", *(f'"{name}{required[name]}"' for name in missing)])
        health.add("broken", message, install)
    for name, bounds in required.items():
        if (version := versions[name]) and not satisfies(version, bounds):
            values = {"name": name, "version": version, "bounds": bounds}
            message = msg("{name} is {version}; Fullconv needs {bounds}.", **values)
            health.add("broken", message, f'pip install --upgrade "{name}{bounds}"')

    torch, vision = versions["torch"], versions["torchvision"]
    bounds = requirements("torchvision").get("torch", "")
    health.facts[MATCH] = match = satisfies(torch, bounds) if torch and vision else None
    if match is False:
        message = msg(
            "torch {torch} does not match torchvision {vision}, which needs torch {bounds}.",
            torch=torch,
            vision=vision,
            bounds=bounds,
        )
        line = f'pip install --upgrade "torch=={str(torch).partition("+")[0]}" torchvision'
        health.add("broken", message, line)

    health.facts["extras"] = {}
    for extra in extras("fullconv"):
        parts = requirements("fullconv", extra)
        missing = [n for n, b in parts.items() if not satisfies(installed_version(n) or "0", b)]
        line = " ".join(["pip install", *(f'"{name}{bounds}"' for name, bounds in parts.items())])
        state = {"installed": not missing, "missing": missing, "line": line}
        health.facts["extras"][extra] = state


def _import_torch(health: Health) -> Any:
    """Return torch if it and torchvision can be used together, else None."""
    versions = health.facts["packages"]
    try:
        import torch
    except Exception as error:  # a library that it links to is missing or of another version
        if versions["torch"]:
            reason = first_line(error)
            message = msg("torch is installed but cannot be imported: {reason}.", reason=reason)
            health.add("broken", message, _REINSTALL_TORCH)
        return None
    versions["torch"] = torch.__version__
    if health.facts[MATCH]:
        try:
            from torchvision.ops import nms  # compiled against torch, so it shows a mismatch

            nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        except Exception as error:
            health.facts[MATCH] = False
            values = {"torch": torch.__version__, "vision": versions["torchvision"]}
            message = msg(
                "torch {torch} and torchvision {vision} do not work together: {reason}.",
                reason=first_line(error),
                **values,
            )
            health.add("broken", message, _REINSTALL_TORCH)
    return torch


def _examine_devices(health: Health, torch: Any) -> None:
    """List the devices that networks can run on, and look for an unused GPU."""
    health.facts["cores"] = count = cpu_cores()
    cores: Message = nmsg("CPU, {count} core", "CPU, {count} cores", count)
    devices: list[dict[str, Any]] = [{"name": "cpu", "description": cores}]
    health.facts["devices"] = devices
    if torch is None:
        return
    from fullconv.inference.runtime import computes_in_bfloat16

    fast = computes_in_bfloat16(torch.device("cpu"))
    supported = msg("with bfloat16 instructions") if fast else msg("no bfloat16 instructions")
    devices[0] |= {"description": join([cores, supported], ", "), "bfloat16": fast}
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        backend = torch.version.cuda or torch.version.hip
        memory = gpu.total_memory
        description = f"{gpu.name}, {format_size(memory)}, {backend}"
        devices.append({"name": f"cuda:{number}", "description": description, "memory": memory})
    if len(devices) > 1:
        return
    version = torch.__version__
    if _NVIDIA_DEVICE.exists() and not torch.version.cuda:
        message = msg(
            "there is an NVIDIA GPU, but torch {version} is built without CUDA.", version=version
        )
        health.add("slow", message, _REINSTALL_TORCH)
    elif _NVIDIA_DEVICE.exists():
        message = msg("there is an NVIDIA GPU, but torch {version} cannot use it.", version=version)
        health.add("slow", message, msg("nvidia-smi   # is its driver new enough?"))
    elif not fast:
        message = msg(
            "this CPU has no bfloat16 instructions and there is no GPU, so models run in float32."
        )
        line = msg("fullconv predict MODEL IMAGES --compile   # faster, after up to a minute")
        health.add("slow", message, line)


def _examine_kernels(health: Health, torch: Any) -> None:
    """Find out which backend computes losses and label maps, by running it on each device."""
    forced = os.environ.get(_KERNELS, "")
    library, reason = load_library()
    health.facts["compiler"] = find_cpp_compiler()
    health.facts["kernels"] = backends = {}
    devices = ["cpu"]
    if torch is None:
        compiled = library is not None and forced != "reference"
        slower = msg("NumPy, which is slower")
        backends["cpu"] = msg("native (compiled C++)") if compiled else slower
        devices = []
    elif torch.cuda.is_available():
        devices = ["cuda"] if forced == "triton" else ["cpu", "cuda"]
    for device in devices:
        try:
            backends[device] = _backend(torch, device, forced, compiled=library is not None)
        except FullconvError as error:
            backends[device] = msg("none")
            health.add("broken", error.message, error.hint)
        except Exception as error:  # a compiler's or a driver's
            backends[device] = msg("none")
            values = {"device": device, "reason": first_line(error)}
            message = msg("label maps cannot be computed on {device}: {reason}.", **values)
            health.add("broken", message, f"export {_KERNELS}=reference")
    if forced == "reference":
        message = msg("FULLCONV_KERNELS=reference makes torch compute losses and label maps.")
        health.add("slow", message, f"unset {_KERNELS}")
    elif library is None:
        message = msg(
            "there are no compiled kernels ({reason}), so torch computes losses and label maps.",
            reason=reason,
        )
        line = _REBUILD if health.facts["compiler"] else f"sudo apt install g++ && {_REBUILD}"
        health.add("slow", message, line)
    elif backends.get("cpu", "").endswith("baseline"):
        message = msg("this CPU has neither AVX2 nor AVX-512, or a virtual machine hides them.")
        line = msg("grep -m1 -o avx2 /proc/cpuinfo   # no output: give the VM its host's CPU type")
        health.add("slow", message, line)


def _backend(torch: Any, device: str, forced: str, *, compiled: bool) -> Message:
    """Compute a label map on a device, and return which backend did it."""
    from fullconv.geometry.grid import Grid
    from fullconv.network.kernels import dispatch, native, reference

    values = torch.zeros(1, 2, 2, 2, device=device)
    # The dispatcher would print a note about missing kernels, which is a finding here.
    missing = device == "cpu" and not forced and not compiled
    backend = reference if missing else dispatch.select_backend(values)
    backend.labels(values, Grid(8, 0, 1), (8, 8))
    if backend is native:
        return msg("native, compiled C++ with {name}", name=native.instructions())
    if backend is not reference:
        return msg("triton")
    return msg("reference, torch (FULLCONV_KERNELS)") if forced else msg("reference, torch")


def _examine_threads(health: Health, torch: Any) -> None:
    cores, limit = health.facts["cores"], container_cpu_limit()
    health.facts["threads"] = threads = torch.get_num_threads() if torch else None
    if threads is None:
        return
    counted = nmsg("{count} thread", "{count} threads", threads)
    cpu = health.facts["devices"][0]
    cpu["description"] = join([cpu["description"], counted], ", ")
    chosen = os.environ.get(_THREADS, "")
    values = {"chosen": chosen, "threads": threads, "cores": cores, "limit": limit}
    if chosen and threads < cores:
        message = msg(
            "OMP_NUM_THREADS={chosen}: networks run in {threads} of {cores} cores.", **values
        )
        health.add("slow", message, f"unset {_THREADS}")
    elif threads == 1 < cores:
        message = msg("networks run in one thread, although there are {cores} cores.", cores=cores)
        health.add("slow", message, f"export {_THREADS}={cores}")
    elif limit is not None and threads > cores:
        message = msg(
            "{threads} threads share the {limit:g} cores that this container may use.", **values
        )
        health.add("slow", message, f"export {_THREADS}={cores}")


def _examine_space(health: Health) -> None:
    memory = memory_size()
    health.facts["memory"] = asdict(memory)
    if memory.available < 2 * GIB:
        message = msg("only {size} of memory are available.", size=format_size(memory.available))
        health.add(
            "warning",
            message,
            msg("fullconv train DATA --batch-size 2 --workers 0 --cache 0   # needs little memory"),
        )
    health.facts["disk"] = {}
    places = {"this folder": (Path.cwd, "cd "), "cache": (cache_dir, "export XDG_CACHE_HOME=")}
    for name, (find_folder, command) in places.items():
        with suppress(OSError, RuntimeError):  # a deleted folder, a user without a home
            folder = find_folder()
            free = free_disk_space(folder)
            health.facts["disk"][name] = {"folder": str(folder), "free": free}
            if free < GIB:
                values = {"size": format_size(free), "folder": folder}
                message = msg("only {size} are free in {folder}.", **values)
                health.add("warning", message, f"{command}/another/disk")
    if _SHARED_MEMORY.is_dir() and (free := free_disk_space(_SHARED_MEMORY)) < GIB / 4:
        message = msg(
            "only {size} of shared memory are free; the processes that load images need it.",
            size=format_size(free),
        )
        line = msg("docker run --shm-size 2g ...   # or: fullconv train DATA --workers 0")
        health.add("warning", message, line)


@app.command(group=ANALYSIS, sort_key=32)
def doctor(*, json: Json = False) -> int:
    """Check the installation and suggest fixes. Exits with code 1 if something is broken."""
    health = examine()
    ahead = "" if health.broken else msg("fullconv check DATA   # or: fullconv demo")
    print_result(health.to_dict(), health.text(), json, ahead=ahead)
    return int(health.broken)
