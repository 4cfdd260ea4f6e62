"""The state of an installation: facts and findings, which `fullconv doctor` prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fullconv.core.i18n import Message, join, msg

GIB = 2**30
MATCH = "torch_and_torchvision_match"
LEVELS = {"broken": msg("broken"), "warning": msg("warning"), "slow": msg("slow")}


@dataclass(frozen=True)
class Finding:
    """A part that is broken, may break (warning) or is slow, and a line that fixes it."""

    level: Literal["broken", "warning", "slow"]
    message: str
    line: str


@dataclass
class Health:
    """The state of an installation: JSON-able facts by subject, and findings, the worst first."""

    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Return whether something cannot work at all."""
        return any(finding.level == "broken" for finding in self.findings)

    def add(self, level: Literal["broken", "warning", "slow"], message: str, line: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, message, line))

    def to_dict(self) -> dict[str, Any]:
        """Return the facts and findings for --json."""
        findings = [asdict(finding) for finding in self.findings]
        return {**self.facts, "broken": self.broken, "findings": findings}

    def text(self) -> Message:
        """Return the facts and findings to read."""
        facts = self.facts
        rows: list[tuple[str, str]] = [
            ("fullconv", facts["fullconv"]),
            ("python", facts["python"]["description"]),
            *((name, version or "-") for name, version in facts["packages"].items()),
        ]
        if facts[MATCH] is not None:
            bad = msg("torch and torchvision do not match")
            rows.append(("", msg("torch and torchvision match") if facts[MATCH] else bad))
        rows += [(msg("device"), device["description"]) for device in facts["devices"]]
        for device, backend in facts["kernels"].items():
            kernels = msg("{device}: {backend}", device=device, backend=backend)
            rows.append((msg("kernels"), kernels))
        rows.append((msg("compiler"), facts["compiler"] or msg("none")))
        available, total = (format_size(facts["memory"][key]) for key in ("available", "total"))
        memory = msg("{available} of {total} available", available=available, total=total)
        rows.append((msg("memory"), memory))
        for name, disk in facts["disk"].items():
            place = msg("this folder") if name == "this folder" else msg("cache")
            values = {"size": format_size(disk["free"]), "folder": disk["folder"], "name": place}
            rows.append((msg("disk"), msg("{size} free in {folder} ({name})", **values)))
        for extra, state in facts["extras"].items():
            missing = msg("not installed: {line}", line=state["line"])
            rows.append((f"[{extra}]", msg("installed") if state["installed"] else missing))
        lines: list[str] = [msg("{name:<17}{value}", name=n, value=v) for n, v in rows]
        for finding in self.findings:
            level = LEVELS[finding.level]
            lines += ["", msg("{level}: {message}", level=level, message=finding.message)]
            lines.append(msg("  try: {hint}", hint=finding.line))
        if not self.broken:
            lines += ["", msg("nothing is broken")]
        return join(lines)


def format_size(count: int) -> str:
    """Return a number of bytes in GiB."""
    return f"{count / GIB:.1f} GiB"
