"""Rules of the source that import-linter and ruff cannot check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fullconv

SOURCE = Path(__file__).parents[1] / "src/fullconv"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
TEXTS = {name: (SOURCE / name).read_text(encoding="utf-8") for name in FILES}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}
VAGUE = {"utils", "helpers", "common", "misc", "base"}  # names that tell nothing
BROAD = ("Exception", "BaseException")
# Importing one of these takes seconds, which a quick answer does not have.
HEAVY = {"torch", "torchvision", "timm", "lightning", "torchmetrics", "matplotlib"}
# Files that need them as soon as they are imported; all others import them inside functions.
NEED_TORCH = (
    "geometry/",
    "network/",
    "training/",
    "data/loading/",
    "deploy/export",
    "cli/inspect.py",
    "models/model.py",
    "models/open.py",
    "models/third_party.py",
    "inference/predictor.py",
    "inference/runtime.py",
    "inference/tiling.py",
    "inference/geotiff.py",
    "inference/heatmap.py",
    "evaluation/evaluate.py",
)
TORCH_FREE = ("network/kernels/library.py", "network/kernels/numpy_arrays.py", "geometry/grid.py")


def imports(name: str) -> Iterator[tuple[str, int, bool]]:
    """Yield each import of a file: dotted name, line, and whether it runs at import time."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, at_import) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import"
            yield from ((f"{node.module}.{a.name}", node.lineno, at_import) for a in node.names)
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_import and not is_function)

    yield from walk(TREES[name], True)


def test_names_and_docstrings() -> None:
    for name in FILES:
        assert not TEXTS[name].strip() or ast.get_docstring(TREES[name]), f"{name}: no docstring"
        assert not set(Path(name).with_suffix("").parts) & VAGUE, name


def test_imports() -> None:
    for name in FILES:
        needs_torch = name.startswith(NEED_TORCH) and name not in TORCH_FREE
        for module, line, at_import in imports(name):
            package, where = module.split(".")[0], f"{name}:{line} imports {module}"
            assert needs_torch or not (at_import and package in HEAVY), where
            assert package not in ("pickle", "dill", "joblib"), where
            # The public names are for users; inside, a name is imported from where it is defined.
            public = module.removeprefix("fullconv.")
            assert public == module or public not in fullconv.__all__ or public == "geometry", where


def test_no_handler_swallows_every_error() -> None:
    for name in FILES:
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.ExceptHandler):
                broad = node.type is None or ast.unparse(node.type) in BROAD
                silent = all(isinstance(line, (ast.Pass, ast.Continue)) for line in node.body)
                assert not (broad and silent), f"{name}:{node.lineno}"


def test_comments_of_hints_are_translated() -> None:
    """A line to paste may end with a comment for people: `fullconv train DATA   # or: ...`."""
    for name in FILES:
        allowed: set[ast.AST] = set()  # docstrings, and arguments of msg
        hints = []
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.Expr):
                allowed.add(node.value)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("msg", "nmsg"):
                allowed.update(node.args)
            if isinstance(node, ast.Constant) and "   # " in str(node.value):
                hints.append(node)
        for hint in hints:
            assert hint in allowed, f"{name}:{hint.lineno}: write msg({hint.value!r})"


def test_torch_unpickles_nothing() -> None:
    for name in FILES:
        for line in TEXTS[name].splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, (name, line)


def test_the_compiled_kernels_have_all_their_files() -> None:
    """Installing succeeds without them, and everything only becomes slower."""
    folder = SOURCE / "network/kernels/compiled"
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    included = set(re.findall(r'^#include "(.+)"', text, re.MULTILINE))
    assert included == {path.name for path in folder.iterdir()} - {"native.cpp"}


def test_no_module_hides_a_public_function() -> None:
    """`import fullconv.x` sets the attribute x of the package."""
    packages = {Path(name).parts[0].removesuffix(".py") for name in FILES} - {"geometry"}
    assert not packages & set(fullconv.__all__)
