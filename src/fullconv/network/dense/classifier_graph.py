"""A classifier opened: its operations as a graph, and where its feature maps end.

Modules that hand on a feature map stay closed, whatever they do inside. Only the others are opened
(torch.fx): the classifier itself and what pools, flattens and classifies at its end. An image of
the classifier's own size is followed through the graph without arithmetic (`fullconv.geometry`), so
that the shape, and the place if it has one, of every value is known.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.op_rules import iter_tensors
from fullconv.geometry.positions import SpatialLayout, State, Untracked, layout_of
from fullconv.geometry.trace_network import run_on_device, run_on_meta
from fullconv.geometry.tracer import run_traced

# Whole operations where they stand at the end, so that they are rewritten in one piece.
LAYERS = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
POOLS = ("avg_pool2d", "max_pool2d")
RUN_ERRORS = (RuntimeError, AssertionError, ValueError, TypeError, IndexError)


@dataclass(frozen=True)
class ClassifierGraph:
    """A classifier as a graph.

    Args:
        network: computes what the classifier computes in evaluation mode.
        values: what each node gives for an image of the classifier's own size, by the node's name:
            tensors on the meta device with their `place`, or sizes and the like.
        kept: the names of the nodes that lead to feature maps. The others are the end.
        state: of the scores.
    """

    network: fx.GraphModule
    values: dict[str, Any]
    kept: frozenset[str]
    state: State | None

    @property
    def borders(self) -> list[str]:
        """The feature maps that the end reads."""
        read = {
            given.name
            for node in self.network.graph.nodes
            if node.name not in self.kept
            for given in node.all_input_nodes
        }
        return [n.name for n in self.network.graph.nodes if n.name in read & self.kept]


def trace_classifier(classifier: nn.Module, size: int, name: str) -> ClassifierGraph:
    """Opens a classifier.

    Args:
        classifier: maps (N, 3, H, W) to class scores (N, K).
        size: H = W of the images that it is made for, in pixels.
        name: to call it by.

    Raises:
        FullconvError: it does not run on such an image, or cannot be followed.
    """
    with _closed_modules(classifier) as closed:
        output = follow(classifier, (size, size), name)
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise FullconvError(
            f"{name} returns {found} for one image; a classifier returns scores (1, K).",
            'fc.convolutionalize("resnet18")',
        )
    network = _graph(classifier, closed, name, layout_of(output))
    values: dict[str, Any] = {}
    follow(_noted(network, values), (size, size), name)
    return ClassifierGraph(network, values, _kept(network, values), layout_of(output))


def follow(module: nn.Module, size: tuple[int, int], name: str) -> Any:
    """What the module returns for an image (1, 3, H, W), with places, on the meta device; with
    arithmetic where it makes tensors of its own there.

    Raises:
        FullconvError: it does not run on such an image.
    """
    problem: Exception | None = None
    for run in (run_on_meta, run_on_device):
        try:
            return run_traced(module, size, run)
        except RUN_ERRORS as error:
            problem = problem or error
    raise FullconvError(
        f"{name} does not run on an image of {size[0]} x {size[1]} pixels: {first_line(problem)}",
        "fc.convolutionalize(classifier, size=224)   # the size that it takes",
    )


def first_line(error: Exception | None) -> str:
    """Of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")


def _noted(network: fx.GraphModule, values: dict[str, Any]) -> nn.Module:
    """The graph as a module that notes what its nodes give, and bears the classifier's name, by
    which operations are named."""

    def forward(self: Any, image: Tensor) -> Any:
        values.clear()
        return Run(self.network, values).run(image)

    module: nn.Module = type(type(network).__name__, (nn.Module,), {"forward": forward})()
    module.network = network
    return module


class Run(fx.Interpreter):
    """One run of a network, which notes what its nodes give.

    Args:
        network: a graph.
        noted: is filled, by the nodes' names.
        only: these names; all by default.
    """

    def __init__(
        self, network: fx.GraphModule, noted: dict[str, Any], only: Collection[str] | None = None
    ) -> None:
        super().__init__(network)
        self.extra_traceback = False
        self.noted, self.only = noted, only

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if self.only is None or node.name in self.only:
            self.noted[node.name] = value
        return value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        # A graph's lists cannot be changed, and some modules change the list that they are given.
        own = tuple(list(value) if isinstance(value, list) else value for value in args)
        return super().call_module(target, own, kwargs)


@contextmanager
def _closed_modules(classifier: nn.Module) -> Iterator[set[str]]:
    """Filled while the classifier runs: the names of the modules that hand on feature maps."""
    closed: set[str] = set()
    opened: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            places = [isinstance(layout_of(t), SpatialLayout) for t in iter_tensors(output)]
            layer = type(module).__module__.startswith("torch.nn")
            tokens = bool(places) and all(places) and not layer  # left whole, to be named
            if not tokens and not _is_kept(output, collapsed=False):
                opened.add(name)
            if type(module) in (nn.AvgPool2d, nn.MaxPool2d) and collapses(given[0], output):
                # The pooling of the whole map, written as one of a fixed size.
                parts = name.split(".")
                opened.update(".".join(parts[:n]) for n in range(1, len(parts) + 1))
            closed.add(name)

        return hook

    handles = [
        child.register_forward_hook(note(name))
        for name, child in classifier.named_modules()
        if name
    ]
    try:
        yield closed
    finally:
        for handle in handles:
            handle.remove()
        closed -= opened


def collapses(given: Tensor, output: Tensor) -> bool:
    """Whether a pooling makes one cell of a map of several."""
    return tuple(output.shape[2:]) == (1, 1) != tuple(given.shape[2:])


class _Tracer(fx.Tracer):
    """Goes into every module that is not closed; knows where it is."""

    def __init__(self, closed: set[str]) -> None:
        super().__init__()
        self.closed = closed
        self.inside: list[str] = []

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return name in self.closed or type(module) in LAYERS

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.inside.append(self.path_of_module(module))
        output = super().call_module(module, forward, args, kwargs)
        self.inside.pop()  # not where it fails: there it is read
        return output


def _graph(
    classifier: nn.Module, closed: set[str], name: str, state: State | None
) -> fx.GraphModule:
    """The classifier in evaluation mode, its closed modules as single nodes. A module that cannot
    be opened, because it decides by what it computes, stays closed too."""
    parameters = list(inspect.signature(classifier.forward).parameters.values())[1:]
    fixed = {p.name: p.default for p in parameters if p.default is not p.empty}
    classifier.eval()
    closed = set(closed)
    while True:
        tracer = _Tracer(closed)
        try:
            graph = tracer.trace(classifier, concrete_args=fixed)
            return fx.GraphModule(classifier, graph, class_name=type(classifier).__name__)
        except Exception as error:  # whatever the classifier's own code does with a stand-in
            if tracer.inside:
                closed.add(tracer.inside[-1])
                continue
            raise FullconvError(
                f"{name} cannot be made dense: its forward cannot be followed, for it decides by "
                f"what it computes ({first_line(error)}).{seen(state)}",
                "put `if` and loops over tensors into modules that return feature maps",
            ) from error


def seen(state: State | None) -> str:
    """What made a classifier's scores of the whole image, but for the pooling that ends every
    trunk; to go behind a reason."""
    names = [name for name in names_of(state) if not name.endswith("(global pooling)")]
    return f" Its scores are made of the whole image by {', '.join(names)}." if names else ""


def names_of(state: State | None) -> list[str]:
    """The operations that saw the whole image."""
    return sorted(state.reasons if isinstance(state, Untracked) else state.whole if state else ())


def _kept(network: fx.GraphModule, values: dict[str, Any]) -> frozenset[str]:
    """The nodes that feature maps come from, and those that have nothing to do with the image."""
    collapsed: set[fx.Node] = set()
    kept: set[str] = set()
    for node in network.graph.nodes:
        if any(given in collapsed for given in node.all_input_nodes) or _is_collapse(node, values):
            collapsed.add(node)
        if node.op in ("placeholder", "get_attr"):
            kept.add(node.name)
        elif node.op != "output" and _is_kept(values[node.name], node in collapsed):
            _keep_with_ancestors(node, kept)
    return frozenset(kept)


def _is_kept(value: Any, collapsed: bool) -> bool:
    """A feature map (of more than one cell, behind a pooling of all of one), or nothing of the
    image's."""
    found = iter_tensors(value)
    states = [layout_of(tensor) for tensor in found]
    if all(state is None for state in states):
        return bool(found)
    return all(is_map(state) for state in states) and (
        not collapsed or any(max(tensor.shape[2:]) > 1 for tensor in found)
    )


def is_map(state: State | None) -> bool:
    """Rows, columns, channels and the batch, in any order; no tokens, no parts of windows."""
    along = (
        [dim for dim in state.dims if dim is not None] if isinstance(state, SpatialLayout) else []
    )
    return sorted(map(str, along)) == ["(0, 1)", "(1, 1)"] and len(state.dims) == 4  # type: ignore[union-attr]


def _keep_with_ancestors(node: fx.Node, kept: set[str]) -> None:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        kept.add(one.name)
        waiting.extend(given for given in one.all_input_nodes if given.name not in kept)


def _is_collapse(node: fx.Node, values: dict[str, Any]) -> bool:
    if node.op != "call_function" or operation(node) not in POOLS:
        return False
    given = values[node.all_input_nodes[0].name]
    return given.ndim == 4 and collapses(given, values[node.name])


def operation(node: fx.Node) -> str:
    """The operation's name, as `fullconv.geometry.op_rules` has it."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    # torch.nn.functional.max_pool2d goes by the name of its dispatcher.
    return {"boolean_dispatch": "max_pool2d", "fn": "max_pool2d"}.get(name, name.strip("_"))
