"""The rules of the house that a machine can check: sizes, names, tests, and who imports whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fullconv"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
MODULES = [name for name in FILES if not name.endswith("__init__.py")]

# Imports point from the right to the left; within one entry they may go any way.
ORDER = (
    {"errors", "language"},
    {"labels", "settings", "memory", "threads"},
    {"markup"},
    {
        "tracing",
        "geometry",
        "kernels",
        "network",
        "data",
        "metrics",
        "draw",
        "draw_legend",
        "counts",
        "resampling",
        "curves",
        "shown",
    },
    {"foreign", "hub"},
    {"model_card", "model", "sheet", "album", "heatmap", "draw_heat"},
    {"engine"},
    {"tiles", "regions", "polygons", "options", "probabilities", "outputs"},
    {"segmenter"},
    {"deployed"},
    {"predict"},
    {"rasters", "video"},
    {"listed", "finished", "processes", "many"},
    {"machine", "installed"},
    {"quality"},
    {"evaluation", "inspect", "probe", "graph", "export", "web", "doctor", "publish"},
    {"report", "run", "stages", "alike", "comparison", "compared_text", "compared_page"},
    {
        "progress",
        "loop",
        "finish",
        "choices",
        "names",
        "start",
        "watch",
        "loggers",
        "training",
    },
    {"demo"},
    {"serve"},
    {
        "terminal",
        "compare_command",
        "completion_command",
        "data_commands",
        "doctor_command",
        "evaluate_command",
        "paper_commands",
        "export_command",
        "predict_command",
        "publish_command",
        "serve_command",
        "cli",
    },
    {"__main__"},
)
# Inside the fourth entry: whom each part knows beside itself.
KNOWS = {
    "tracing": set(),
    "geometry": {"tracing"},
    "kernels": {"geometry"},
    "network": {"tracing", "geometry", "kernels"},
    "data": set(),
    "metrics": set(),
    "draw": set(),
}
HEAVY = {"torch", "torchvision", "timm", "lightning", "torchmetrics", "matplotlib"}
TORCHLESS = {
    "errors",
    "language",
    "labels",
    "settings",
    "memory",
    "threads",
    "metrics",
    "draw",
    "draw_legend",
    "model_card",
    "markup",
    "counts",
    "resampling",
    "curves",
    "shown",
    "run",
    "stages",
    "alike",
    "comparison",
    "compared_text",
    "compared_page",
    "compare_command",
    "terminal",
    "machine",
    "installed",
    "doctor",
    "doctor_command",
    "evaluate_command",
    "completion_command",
    "data_commands",
    "paper_commands",
    "export_command",
    "regions",
    "quality",
    "polygons",
    "options",
    "outputs",
    "probabilities",
    "segmenter",
    "video",
    "deployed",
    "listed",
    "finished",
    "processes",
    "many",
    "predict_command",
    "publish_command",
    "hub",
    "serve_command",
    "cli",
    "__main__",
    "__init__",
}
LINES, FUNCTION_LINES = 400, 60


def part_of(module: str) -> str:
    """network/fcn.py -> network, model.py -> model"""
    return module.split("/")[0].removesuffix(".py")


def imports_of(module: str) -> list[tuple[str, int, bool]]:
    """Dotted name, line, and whether it runs on import; imports inside functions count, those for
    the type checker do not."""
    tree = ast.parse((SOURCE / module).read_text(encoding="utf-8"))
    found: list[tuple[str, int, bool]] = []

    def walk(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, at_import) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            found.extend(
                (f"{node.module}.{alias.name}", node.lineno, at_import) for alias in node.names
            )
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            walk(child, at_import and not inside)

    walk(tree, True)
    return found


def parts_imported(module: str) -> list[tuple[str, int]]:
    """The parts of fullconv that a module imports, with the line."""
    return [
        (name.split(".")[1], line)
        for name, line, _ in imports_of(module)
        if name.startswith("fullconv.") and part_exists(name.split(".")[1])
    ]


def part_exists(part: str) -> bool:
    """`from fullconv import __version__` names no part."""
    return (SOURCE / f"{part}.py").is_file() or (SOURCE / part).is_dir()


def rank(part: str) -> int:
    return next(index for index, parts in enumerate(ORDER) if part in parts)


def functions_of(module: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse((SOURCE / module).read_text(encoding="utf-8"))
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_there_is_something_to_check() -> None:
    assert {"cli.py", "network/fcn.py", "data/samples.py", "geometry.py"} <= set(MODULES)


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__main__.py"])
def test_every_file_has_its_tests_at_the_mirrored_place(module: str) -> None:
    path = Path(module)
    tests = ROOT / "tests" / path.parent / f"test_{path.name}"
    assert tests.is_file(), f"src/fullconv/{module} has no {tests.relative_to(ROOT)}"


def test_every_test_file_has_its_source() -> None:
    for tests in (ROOT / "tests").rglob("test_*.py"):
        path = tests.relative_to(ROOT / "tests")
        source = (path.parent / path.name.removeprefix("test_")).as_posix()
        assert source in FILES or source in (
            "house.py",
            "readme.py",
            "sets.py",
            "walkthrough.py",
            "page.py",
            "images.py",
            "load.py",
            "docs.py",
            "messages.py",
        ), f"tests/{path} tests no src/fullconv/{source}"


@pytest.mark.parametrize("module", FILES)
def test_no_file_is_longer_than_one_idea(module: str) -> None:
    count = len((SOURCE / module).read_text(encoding="utf-8").splitlines())
    assert count <= LINES, f"src/fullconv/{module} has {count} lines; at most {LINES}"


@pytest.mark.parametrize("module", FILES)
def test_no_function_is_too_long(module: str) -> None:
    for function in functions_of(module):
        assert function.end_lineno is not None
        count = function.end_lineno - function.lineno + 1
        assert count <= FUNCTION_LINES, f"{module}: {function.name} has {count} lines"


@pytest.mark.parametrize("module", FILES)
def test_no_file_has_a_name_that_says_nothing(module: str) -> None:
    for name in Path(module).with_suffix("").parts:
        assert name not in ("utils", "util", "helpers", "helper", "common", "misc", "base")
        assert not name.startswith("base_")


@pytest.mark.parametrize("module", MODULES)
def test_every_file_says_what_it_is(module: str) -> None:
    text = ast.get_docstring(ast.parse((SOURCE / module).read_text(encoding="utf-8")))
    assert text, f"src/fullconv/{module} has no docstring"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    own = part_of(module)
    for part, line in parts_imported(module):
        where = f"src/fullconv/{module}:{line}: {own} imports {part}"
        assert part != "cli" or own == "__main__", where
        if part == own:
            continue
        assert rank(part) <= rank(own), where
        if own in KNOWS and part in KNOWS:
            assert part in KNOWS[own], where


def test_no_two_files_import_each_other() -> None:
    names = {f"fullconv.{m.removesuffix('.py').replace('/', '.')}": m for m in MODULES}
    graph = {
        m: {names[n] for name, _, now in imports_of(m) if now for n in prefixes(name) if n in names}
        for m in MODULES
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " imports ".join((*path, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def prefixes(name: str) -> list[str]:
    """fullconv.data.io.masks.read_mask -> that, and fullconv.data.io.masks"""
    return [name, name.rpartition(".")[0]]


@pytest.mark.parametrize("module", [m for m in FILES if part_of(m) in TORCHLESS])
def test_nothing_heavy_runs_on_import_where_a_quick_answer_is_promised(module: str) -> None:
    for name, line, now in imports_of(module):
        assert not now or name.split(".")[0] not in HEAVY, f"src/fullconv/{module}:{line}: {name}"


@pytest.mark.parametrize("module", FILES)
def test_no_error_is_swallowed_unseen(module: str) -> None:
    tree = ast.parse((SOURCE / module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            silent = all(isinstance(line, (ast.Pass, ast.Continue)) for line in node.body)
            assert not (broad and silent), f"src/fullconv/{module}:{node.lineno}"


@pytest.mark.parametrize("module", FILES)
def test_nothing_unpickles_a_model(module: str) -> None:
    """Only the checkpoint of one's own run is read by torch.load, see `fullconv train --resume`;
    and of files of others nothing but tensors."""
    for name, line, _ in imports_of(module):
        assert name.split(".")[0] not in ("pickle", "dill", "joblib"), f"{module}:{line}: {name}"
    text = (SOURCE / module).read_text(encoding="utf-8")
    if module == "network/weights.py":
        assert text.count("torch.load(") == text.count("weights_only=True)") == 1
    elif "torch.load(" in text:
        assert module in ("training.py", "network/card.py"), module  # the latter in a hint


def test_no_module_takes_the_place_of_a_public_function() -> None:
    """Importing fullconv.x sets the attribute x of the package, and so would hide a function x."""
    import fullconv

    modules = {part_of(module) for module in FILES} - {"geometry"}  # public as a module
    assert not modules & set(fullconv.__all__)
    assert {name for name in fullconv.__all__ if not hasattr(fullconv, name)} == set()
