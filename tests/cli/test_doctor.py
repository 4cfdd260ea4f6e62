"""The doctor: its findings in sound and in broken installations, each with a line to paste."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from commands import Cli

from fullconv.cli import doctor
from fullconv.cli.doctor import examine
from fullconv.cli.health import GIB, Finding, Health
from fullconv.core.hardware import Memory
from fullconv.core.packages import extras, requirements
from fullconv.network.kernels import library, native

GPU = torch.cuda.is_available()
VERSION = torch.__version__.partition("+")[0]
REINSTALL = "pip install --force-reinstall torch torchvision"
REBUILD = "pip install --force-reinstall --no-deps --editable CLONE"
BFLOAT16 = "fullconv.inference.runtime.computes_in_bfloat16"


def patch(monkeypatch: pytest.MonkeyPatch, results: dict[str, Any]) -> None:
    """Let functions return fixed results; a plain name is one that `doctor` calls."""
    for name, result in results.items():
        target = name if "." in name else f"fullconv.cli.doctor.{name}"
        monkeypatch.setattr(target, lambda *_, result=result: result)


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without findings, except for those that a test causes."""
    monkeypatch.delenv("FULLCONV_KERNELS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    patch(monkeypatch, {"memory_size": Memory(16 * GIB, 8 * GIB), "free_disk_space": 10 * GIB})
    patch(monkeypatch, {"cpu_cores": torch.get_num_threads(), "container_cpu_limit": None})
    patch(monkeypatch, {BFLOAT16: True})
    monkeypatch.setattr(doctor, "_NVIDIA_DEVICE", Path("/nowhere"))


@pytest.fixture
def mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision require another version of torch."""

    def fake(package: str, extra: str = "") -> dict[str, str]:
        return {"torch": "<1"} if package == "torchvision" else requirements(package, extra)

    monkeypatch.setattr(doctor, "requirements", fake)


def only(health: Health) -> Finding:
    (finding,) = health.findings
    assert f"{finding.level}: {finding.message}\n  try: {finding.line}" in health.text()
    assert health.broken == (finding.level == "broken")
    assert ("nothing is broken" in health.text()) != health.broken
    return finding


def test_facts() -> None:
    health = examine()
    facts, text = health.to_dict(), health.text()
    assert health.findings == []
    assert json.loads(json.dumps(facts)) == facts
    assert facts["python"]["version"] == platform.python_version()
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["packages"]["torchvision"] == torchvision.__version__.partition("+")[0]
    assert list(facts["packages"]) == list(requirements("fullconv"))
    assert facts["torch_and_torchvision_match"]
    assert facts["threads"] == torch.get_num_threads()
    assert facts["devices"][0]["name"] == "cpu"
    assert len(facts["devices"]) == 1 + torch.cuda.device_count()
    if library.load_library()[0] is not None:
        assert facts["kernels"]["cpu"] == f"native, compiled C++ with {native.instructions()}"
    assert f"torch            {torch.__version__}\n" in text
    assert "torch and torchvision match\n" in text
    assert "8.0 GiB of 16.0 GiB available\n" in text
    assert f"10.0 GiB free in {Path.cwd()} (this folder)\n" in text
    assert text.endswith("\nnothing is broken")


NO_KERNELS = (None, "no C++ compiler when it was installed")
ONE_THREAD = {"torch.get_num_threads": 1, "cpu_cores": 8}
CONTAINER = {"torch.get_num_threads": 16, "cpu_cores": 2, "container_cpu_limit": 1.5}
# What functions return, environment, finding, and a part of the facts.
SLOW = [
    ({"load_library": NO_KERNELS, "find_cpp_compiler": "/usr/bin/c++"}, {},
     f"there are no compiled kernels ({NO_KERNELS[1]}), so torch computes losses and label maps.",
     REBUILD, "cpu: reference, torch\ncompiler         /usr/bin/c++\n"),
    ({"load_library": NO_KERNELS, "find_cpp_compiler": None}, {},
     f"there are no compiled kernels ({NO_KERNELS[1]}), so torch computes losses and label maps.",
     f"sudo apt install g++ && {REBUILD}", "compiler         none\n"),
    ({}, {"FULLCONV_KERNELS": "reference"},
     "FULLCONV_KERNELS=reference makes torch compute losses and label maps.",
     "unset FULLCONV_KERNELS", "cpu: reference, torch (FULLCONV_KERNELS)\n"),
    (ONE_THREAD, {}, "networks run in one thread, although there are 8 cores.",
     "export OMP_NUM_THREADS=8", "CPU, 8 cores, with bfloat16 instructions, 1 thread\n"),
    (ONE_THREAD, {"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS=1: networks run in 1 of 8 cores.",
     "unset OMP_NUM_THREADS", "CPU, 8 cores, with bfloat16 instructions, 1 thread\n"),
    (CONTAINER, {}, "16 threads share the 1.5 cores that this container may use.",
     "export OMP_NUM_THREADS=2", ""),
    pytest.param(
     {BFLOAT16: False}, {},
     "this CPU has no bfloat16 instructions and there is no GPU, so models run in float32.",
     "fullconv predict MODEL IMAGES --compile   # faster, after up to a minute", "",
     marks=pytest.mark.skipif(GPU, reason="there is a GPU here")),
]  # fmt: skip


@pytest.mark.parametrize(("results", "environ", "message", "line", "part"), SLOW)
def test_what_makes_it_slow(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    results: dict[str, Any],
    environ: dict[str, str],
    message: str,
    line: str,
    part: str,
) -> None:
    patch(monkeypatch, results)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    health = examine()
    assert only(health) == Finding("slow", message, line)
    assert part in health.text()
    assert capfd.readouterr() == ("", "")  # the finding is the only message


@pytest.mark.skipif(GPU, reason="there is a GPU here")
def test_a_gpu_that_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_NVIDIA_DEVICE", tmp_path)
    head = f"there is an NVIDIA GPU, but torch {torch.__version__}"
    driver = "nvidia-smi   # is its driver new enough?"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert only(examine()) == Finding("slow", f"{head} is built without CUDA.", REINSTALL)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert only(examine()) == Finding("slow", f"{head} cannot use it.", driver)


def test_kernels_that_do_not_exist_or_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLCONV_KERNELS", "nativ")
    findings = examine().findings
    assert {finding.level for finding in findings} == {"broken"}
    assert "FULLCONV_KERNELS is 'nativ'; choose from native, " in findings[0].message
    assert findings[0].line == "export FULLCONV_KERNELS=reference"
    if not GPU:
        monkeypatch.setenv("FULLCONV_KERNELS", "triton")
        assert only(examine()).level == "broken"


@pytest.mark.skipif(library.load_library()[0] is None, reason="there are no compiled kernels here")
def test_an_old_processor() -> None:
    before = native.instructions()
    native.instructions("baseline")
    try:
        assert "neither AVX2 nor AVX-512" in only(examine()).message
    finally:
        native.instructions(before)


@pytest.mark.usefixtures("mismatch")
def test_versions_that_do_not_match() -> None:
    health = examine()
    finding = only(health)
    assert not health.facts["torch_and_torchvision_match"]
    assert "torch and torchvision do not match\n" in health.text()
    assert finding.message.startswith(f"torch {VERSION} does not match torchvision ")
    assert finding.message.endswith(", which needs torch <1.")
    assert finding.line == f'pip install --upgrade "torch=={VERSION}" torchvision'


def test_compiled_parts_that_do_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr("torchvision.ops.nms", fail)
    health = examine()
    assert not health.facts["torch_and_torchvision_match"]
    finding = only(health)
    assert finding.message.endswith("not work together: operator torchvision::nms does not exist.")
    assert finding.line == REINSTALL


def test_packages_that_are_too_old_or_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.installed_version
    versions = {"timm": "0.9.12", "scipy": None, "av": None, "onnxruntime": "1.9"}
    monkeypatch.setattr(doctor, "installed_version", lambda name: versions.get(name, real(name)))
    health = examine()
    assert health.findings == [
        Finding("broken", "scipy is not installed.", 'pip install "scipy>=1.14"'),
        Finding(
            "broken",
            "timm is 0.9.12; Fullconv needs >=1.0.20.",
            'pip install --upgrade "timm>=1.0.20"',
        ),
    ]
    assert set(health.facts["extras"]) == set(extras("fullconv"))
    assert health.facts["extras"]["video"]["missing"] == ["av"]
    assert "onnxruntime" in health.facts["extras"]["onnx"]["missing"]
    assert '[video]          not installed: pip install "av>=18.0"\n' in health.text()


def test_little_memory_and_full_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    patch(monkeypatch, {"memory_size": Memory(4 * GIB, GIB // 2)})
    monkeypatch.setattr(doctor, "_SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(
        doctor, "free_disk_space", lambda folder: GIB // (1 + (folder != Path.cwd()))
    )
    (tmp_path / "shm").mkdir()
    assert {finding.line: finding.message for finding in examine().findings} == {
        "fullconv train DATA --batch-size 2 --workers 0 --cache 0   # needs little memory": (
            "only 0.5 GiB of memory are available."
        ),
        "export XDG_CACHE_HOME=/another/disk": f"only 0.5 GiB are free in {tmp_path}/fullconv.",
    }
    patch(monkeypatch, {"free_disk_space": 64 << 20})
    health = examine()
    assert not health.broken
    lines = [finding.line for finding in health.findings]
    assert "cd /another/disk" in lines
    assert "docker run --shm-size 2g ...   # or: fullconv train DATA --workers 0" in lines


@pytest.mark.usefixtures("mismatch")
def test_the_worst_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch, {"memory_size": Memory(GIB, 1)})
    monkeypatch.setenv("FULLCONV_KERNELS", "reference")
    levels = [finding.level for finding in examine().findings]
    assert levels == ["broken", "warning", "slow"]


WITHOUT = """
import importlib.metadata, sys
from importlib.metadata import PackageNotFoundError
from fullconv.cli.main import run
gone, error = {gone}, {error}
version = importlib.metadata.version
def installed(name):
    if name.replace("pillow", "PIL") in gone and type(error) is ModuleNotFoundError:
        raise PackageNotFoundError(name)
    return version(name)
class Finder:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in gone:
            raise error
importlib.metadata.version = installed
sys.meta_path.insert(0, Finder())
sys.exit(run(["doctor"{more}]))
"""


def doctor_without(gone: tuple[str, ...], error: str, more: str = "") -> str:
    """Return what the doctor prints in a Python in which importing some packages fails."""
    code = WITHOUT.format(gone=gone, error=error, more=more)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    return done.stdout


def test_nothing_is_installed_but_the_command_line() -> None:
    gone = tuple("PIL" if name == "pillow" else name for name in requirements("fullconv"))
    gone = tuple(name for name in gone if name not in ("cyclopts", "rich", "packaging", "psutil"))
    out = doctor_without(gone, "ModuleNotFoundError('gone')")
    broken = "torch, torchvision, timm, lightning, torchmetrics, safetensors, huggingface_hub, nu"
    assert f"\nbroken: {broken}" in out
    assert "are not installed. Without torch, Fullconv can only predict with exported " in out
    assert '\n  try: pip install "torch>=2.8" "torchvision>=0.23" "timm>=1.0.20" ' in out
    assert out.count("broken: ") == 1
    assert "match" not in out
    assert "torch            -\n" in out
    facts = json.loads(doctor_without(gone, "ModuleNotFoundError('gone')", ", '--json'"))
    assert (facts["broken"], facts["packages"]["torch"]) == (True, None)
    assert not facts["torch_and_torchvision_match"]


def test_a_torch_that_cannot_be_imported() -> None:
    out = doctor_without(("torch",), "OSError('libcudart.so.13: cannot open shared object file')")
    reason = "libcudart.so.13: cannot open shared object file"
    message = f"torch is installed but cannot be imported: {reason}."
    assert f"broken: {message}\n  try: {REINSTALL}\n" in out


@pytest.mark.parametrize("broken", [False, True])
def test_the_command(cli: Cli, request: pytest.FixtureRequest, broken: bool) -> None:
    if broken:
        request.getfixturevalue("mismatch")
    code, out, err = cli("doctor")
    assert (code, err, out.startswith("fullconv     ")) == (int(broken), "", True)
    assert ("broken: torch" in out) == broken
    ahead = "\nnothing is broken\nnext: fullconv check DATA   # or: fullconv demo\n"
    assert out.endswith(ahead) != broken
    code, out, _ = cli("doctor", "--json")
    facts = json.loads(out)
    levels = [finding["level"] for finding in facts["findings"]]
    assert (code, facts["broken"], levels.count("broken")) == (int(broken), broken, int(broken))
