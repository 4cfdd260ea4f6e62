"""The version of Fullconv, and installed packages as pip recorded them: nothing is imported."""

from __future__ import annotations

__version__ = "0.1.0"  # as in pyproject.toml
# Modules whose package has another name.
_PACKAGES = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}


def installed_version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    from importlib import metadata  # 20 ms, which `import fullconv` should not take

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def requirements(package: str, extra: str = "") -> dict[str, str]:
    """Return what a package or one of its extras requires here: {"torch": ">=2.8"}.

    The versions are those of the installed package's record; {} if it is not installed.
    """
    from importlib import metadata

    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return {}
    required = map(Requirement, lines)
    if extra:
        return {
            r.name: str(r.specifier)
            for r in required
            if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate()
        }
    return {r.name: str(r.specifier) for r in required if r.marker is None or r.marker.evaluate()}


def required_package(module: str) -> str:
    """Return the package that contains a module if Fullconv requires it, else "".

    >>> required_package("PIL"), required_package("tomli_w"), required_package("av")
    ('pillow', 'tomli-w', '')
    """
    name = _PACKAGES.get(module, module).replace("_", "-")
    if name == "packaging":  # which `requirements` imports
        return name
    return next((p for p in requirements("fullconv") if p.replace("_", "-") == name), "")


def extras(package: str) -> list[str]:
    """Return the names of a package's extras."""
    from importlib import metadata

    try:
        return metadata.metadata(package).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return []


def satisfies(version: str, specifier: str) -> bool:
    """Return whether a version is within bounds; a local part such as +cpu does not count.

    >>> satisfies("2.15.0+cpu", "==2.15.0"), satisfies("2.9", "<2.9"), satisfies("2.15rc1", ">=2.9")
    (True, False, True)
    """
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)
