"""The doctor: what it says of sound installations and of broken ones, each with a line to paste."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision

from fullconv.cli import doctor
from fullconv.cli.doctor import examine
from fullconv.cli.health import GIB, Finding, Health
from fullconv.cli.main import run
from fullconv.core.hardware import Memory
from fullconv.core.packages import extras, requirements
from fullconv.network.kernels import library, native

GPU = torch.cuda.is_available()


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is to be said of what a test does not change."""
    monkeypatch.delenv("FULLCONV_KERNELS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(doctor, "memory_size", lambda: Memory(16 * GIB, 8 * GIB))
    monkeypatch.setattr(doctor, "free_disk_space", lambda folder: 10 * GIB)
    monkeypatch.setattr(doctor, "cpu_cores", torch.get_num_threads)
    monkeypatch.setattr(doctor, "container_cpu_limit", lambda: None)
    monkeypatch.setattr("fullconv.inference.runtime.computes_in_bfloat16", lambda device: True)
    monkeypatch.setattr(doctor, "_NVIDIA_DEVICE", Path("/nowhere"))


def replaced(bounds: str) -> Any:
    """Return `requirements`, by which torchvision needs other versions of torch."""
    real = requirements

    def fake(package: str, extra: str = "") -> dict[str, str]:
        return {"torch": bounds} if package == "torchvision" else real(package, extra)

    return fake


def only(health: Health) -> Finding:
    """The one finding."""
    (finding,) = health.findings
    assert f"{finding.level}: {finding.message}\n  try: {finding.line}" in health.text()
    assert health.broken == (finding.level == "broken")
    assert ("nothing is broken" in health.text()) != health.broken
    return finding


def test_what_it_says_is_what_is_here() -> None:
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
    assert f"torch            {torch.__version__}\n" in text
    assert "torch and torchvision match\n" in text
    assert "8.0 GiB of 16.0 GiB available\n" in text
    assert f"10.0 GiB free in {Path.cwd()} (this folder)\n" in text
    assert text.endswith("\nnothing is broken")


def test_the_kernels_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    said = examine().facts["kernels"]["cpu"]
    if library.load_library()[0] is not None:
        assert said == f"native, compiled C++ with {native.instructions()}"
    monkeypatch.setenv("FULLCONV_KERNELS", "reference")
    health = examine()
    assert health.facts["kernels"]["cpu"] == "reference, torch (FULLCONV_KERNELS)"
    assert only(health) == Finding(
        "slow",
        "FULLCONV_KERNELS=reference makes torch compute losses and label maps.",
        "unset FULLCONV_KERNELS",
    )


def test_kernels_that_do_not_exist_or_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLCONV_KERNELS", "nativ")
    found = examine().findings
    assert {one.level for one in found} == {"broken"}
    assert "FULLCONV_KERNELS is 'nativ'; choose from native, " in found[0].message
    assert found[0].line == "export FULLCONV_KERNELS=reference"
    if not GPU:
        monkeypatch.setenv("FULLCONV_KERNELS", "triton")
        assert only(examine()).level == "broken"


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("/usr/bin/c++", "pip install --force-reinstall --no-deps --editable CLONE"),
        (None, "sudo apt install g++ && pip install --force-reinstall --no-deps --editable CLONE"),
    ],
)
def test_no_compiled_kernels(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], where: str, line: str
) -> None:
    none = (None, "no C++ compiler when it was installed")
    monkeypatch.setattr(doctor, "load_library", lambda: none)
    monkeypatch.setattr(doctor, "find_cpp_compiler", lambda: where)
    health = examine()
    assert health.facts["kernels"]["cpu"] == "reference, torch"
    assert f"compiler         {where or 'none'}\n" in health.text()
    assert only(health) == Finding(
        "slow",
        "there are no compiled kernels (no C++ compiler when it was installed), so torch computes "
        "losses and label maps.",
        line,
    )
    assert capfd.readouterr() == ("", "")  # it is said once, by the finding


@pytest.mark.skipif(library.load_library()[0] is None, reason="there are no compiled kernels here")
def test_an_old_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = native.instructions()
    native.instructions("baseline")
    try:
        assert "neither AVX2 nor AVX-512" in only(examine()).message
    finally:
        native.instructions(before)


def test_versions_that_do_not_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requirements", replaced("==1.13.1"))
    health = examine()
    finding, plain = only(health), torch.__version__.partition("+")[0]
    assert not health.facts["torch_and_torchvision_match"]
    assert "torch and torchvision do not match\n" in health.text()
    assert finding.message.startswith(f"torch {plain} does not match torchvision ")
    assert finding.message.endswith(", which needs torch ==1.13.1.")
    assert finding.line == f'pip install --upgrade "torch=={plain}" torchvision'


def test_compiled_parts_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr("torchvision.ops.nms", fail)
    health = examine()
    assert not health.facts["torch_and_torchvision_match"]
    said = only(health)
    assert said.message.endswith("not work together: operator torchvision::nms does not exist.")
    assert said.line == "pip install --force-reinstall torch torchvision"


def test_packages_that_are_too_old_or_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.installed_version
    there = {"timm": "0.9.12", "scipy": None, "av": None, "onnxruntime": "1.9"}
    monkeypatch.setattr(doctor, "installed_version", lambda name: there.get(name, real(name)))
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


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(doctor, "cpu_cores", lambda: 8)
    assert only(examine()) == Finding(
        "slow",
        "networks run in one thread, although there are 8 cores.",
        "export OMP_NUM_THREADS=8",
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert only(examine()) == Finding(
        "slow",
        "OMP_NUM_THREADS=1: networks run in 1 of 8 cores.",
        "unset OMP_NUM_THREADS",
    )
    assert "CPU, 8 cores, with bfloat16 instructions, 1 thread\n" in examine().text()


def test_threads_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(doctor, "cpu_cores", lambda: 2)
    monkeypatch.setattr(doctor, "container_cpu_limit", lambda: 1.5)
    assert only(examine()) == Finding(
        "slow",
        "16 threads share the 1.5 cores that this container may use.",
        "export OMP_NUM_THREADS=2",
    )


@pytest.mark.skipif(GPU, reason="there is a GPU here")
def test_a_processor_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullconv.inference.runtime.computes_in_bfloat16", lambda device: False)
    health = examine()
    assert "no bfloat16 instructions and there is no GPU" in only(health).message
    assert only(health).line.startswith("fullconv predict MODEL IMAGES --compile")


@pytest.mark.skipif(GPU, reason="there is a GPU here")
@pytest.mark.parametrize(
    ("cuda", "said", "line"),
    [
        (None, "is built without CUDA.", "pip install --force-reinstall torch torchvision"),
        ("12.8", "cannot use it.", "nvidia-smi   # is its driver new enough?"),
    ],
)
def test_a_gpu_that_lies_idle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str | None, said: str, line: str
) -> None:
    monkeypatch.setattr(doctor, "_NVIDIA_DEVICE", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    finding = only(examine())
    assert finding.message.startswith("there is an NVIDIA GPU, but torch")
    assert finding.message.endswith(said)
    assert finding.line == line


def test_little_memory_and_full_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "memory_size", lambda: Memory(4 * GIB, GIB // 2))
    monkeypatch.setattr(doctor, "_SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(
        doctor, "free_disk_space", lambda folder: GIB // (1 + (folder != Path.cwd()))
    )
    (tmp_path / "shm").mkdir()
    found = {one.line: one.message for one in examine().findings}
    assert found == {
        "fullconv train DATA --batch-size 2 --workers 0 --cache 0   # needs little memory": (
            "only 0.5 GiB of memory are available."
        ),
        "export XDG_CACHE_HOME=/another/disk": f"only 0.5 GiB are free in {tmp_path}/fullconv.",
    }
    monkeypatch.setattr(doctor, "free_disk_space", lambda folder: 64 << 20)
    health = examine()
    assert not health.broken
    lines = [one.line for one in health.findings]
    assert "cd /another/disk" in lines
    assert "docker run --shm-size 2g ...   # or: fullconv train DATA --workers 0" in lines


def test_the_worst_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "memory_size", lambda: Memory(GIB, 1))
    monkeypatch.setenv("FULLCONV_KERNELS", "reference")
    monkeypatch.setattr(doctor, "requirements", replaced("<1"))
    levels = [finding.level for finding in examine().findings]
    assert levels == ["broken", "warning", "slow"]


WITHOUT = """
import importlib.metadata, sys
from importlib.metadata import PackageNotFoundError
from fullconv.cli.main import run
gone, error = {gone}, {error}
version = importlib.metadata.version
def there(name):
    if name.replace("pillow", "PIL") in gone and type(error) is ModuleNotFoundError:
        raise PackageNotFoundError(name)
    return version(name)
class Finder:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in gone:
            raise error
importlib.metadata.version = there
sys.meta_path.insert(0, Finder())
sys.exit(run(["doctor"{more}]))
"""


def without(gone: tuple[str, ...], error: str, more: str = "") -> SimpleNamespace:
    """The doctor in a Python in which importing some packages fails so."""
    code = WITHOUT.format(gone=gone, error=error, more=more)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return SimpleNamespace(code=done.returncode, out=done.stdout)


def test_it_works_where_nothing_is_installed_but_the_command_line() -> None:
    gone = tuple("PIL" if name == "pillow" else name for name in requirements("fullconv"))
    gone = tuple(name for name in gone if name not in ("cyclopts", "rich", "packaging", "psutil"))
    done = without(gone, "ModuleNotFoundError('gone')")
    assert done.code == 1
    broken = "torch, torchvision, timm, lightning, torchmetrics, safetensors, huggingface_hub, nu"
    assert f"\nbroken: {broken}" in done.out
    assert "are not installed. Without torch, Fullconv can only predict with exported " in done.out
    assert '\n  try: pip install "torch>=2.8" "torchvision>=0.23" "timm>=1.0.20" ' in done.out
    assert done.out.count("broken: ") == 1
    assert "match" not in done.out
    assert "torch            -\n" in done.out
    facts = json.loads(without(gone, "ModuleNotFoundError('gone')", ", '--json'").out)
    assert facts["broken"]
    assert facts["packages"]["torch"] is None
    assert not facts["torch_and_torchvision_match"]


def test_a_torch_that_cannot_be_imported() -> None:
    done = without(("torch",), "OSError('libcudart.so.13: cannot open shared object file')")
    assert done.code == 1
    said = "torch is installed but cannot be imported: libcudart.so.13: cannot open shared object"
    assert f"broken: {said} file.\n  try: pip install --force-reinstall torch tor" in done.out


@pytest.mark.parametrize("broken", [False, True])
def test_the_command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:
        monkeypatch.setattr(doctor, "requirements", replaced("<1"))
    assert run(["doctor"]) == int(broken)
    out, err = capfd.readouterr()
    assert (err, out.startswith("fullconv     ")) == ("", True)
    assert ("broken: torch" in out) == broken
    sound = "\nnothing is broken\nnext: fullconv check DATA   # or: fullconv demo\n"
    assert out.endswith(sound) != broken
    assert run(["doctor", "--json"]) == int(broken)
    facts = json.loads(capfd.readouterr().out)
    levels = [finding["level"] for finding in facts["findings"]]
    assert (facts["broken"], levels.count("broken")) == (broken, int(broken))
