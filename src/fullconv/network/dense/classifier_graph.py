"""A classifier as a graph of operations, split behind its feature maps.

Modules that return a feature map stay closed (single nodes), whatever they do inside. Only the
others are opened by torch.fx: the classifier itself and its head, which pools, flattens and
classifies. An image of the classifier's own size is traced through the graph without arithmetic
(`fullconv.geometry`), which gives the shape and the layout of every value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, join, msg
from fullconv.core.text import first_line
from fullconv.geometry.op_rules import iter_tensors
from fullconv.geometry.positions import SpatialLayout, State, Untracked, layout_of
from fullconv.geometry.trace_network import forward_hooks, run_on_device, run_on_meta
from fullconv.geometry.tracer import run_traced

# Layers of the head that stay closed, so that each is rewritten in one piece.
LAYERS = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
POOLS = ("avg_pool2d", "max_pool2d")
RUN_ERRORS = (RuntimeError, AssertionError, ValueError, TypeError, IndexError)


@dataclass(frozen=True)
class ClassifierGraph:
    """A classifier as a graph."""

    network: fx.GraphModule  # computes what the classifier computes in evaluation mode
    # The result of each node for an image of the classifier's own size, by the node's name: traced
    # tensors on the meta device, or sizes and similar.
    values: dict[str, Any]
    backbone: frozenset[str]  # names of the nodes that lead to feature maps; the rest is the head
    state: State | None  # of the scores

    @property
    def borders(self) -> list[str]:
        """The feature maps that the head reads."""
        read = {
            given.name
            for node in self.network.graph.nodes
            if node.name not in self.backbone
            for given in node.all_input_nodes
        }
        return [n.name for n in self.network.graph.nodes if n.name in read & self.backbone]


def trace_classifier(classifier: nn.Module, size: int, name: str) -> ClassifierGraph:
    """Return the graph of a classifier of images of H = W = `size` pixels; messages use `name`."""
    with _closed_modules(classifier) as closed:
        output = trace_output(classifier, (size, size), name)
    if not isinstance(output, Tensor) or output.ndim != 2:
        message = msg(
            "{name} returns {output} for one image; a classifier returns scores (1, K).",
            name=name,
            output=tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__,
        )
        raise FullconvError(message, 'fc.convolutionalize("resnet18")')
    network = _graph(classifier, closed, name, layout_of(output))
    values: dict[str, Any] = {}
    trace_output(_recording_module(network, values), (size, size), name)
    return ClassifierGraph(network, values, _find_backbone(network, values), layout_of(output))


def trace_output(module: nn.Module, size: tuple[int, int], name: str) -> Any:
    """Return the traced output of a module for an image (1, 3, H, W), on the meta device; with
    arithmetic if the module creates tensors elsewhere.

    Raises:
        FullconvError: the module does not run on such an image.
    """
    problem: Exception | None = None
    for run in (run_on_meta, run_on_device):
        try:
            return run_traced(module, size, run)
        except RUN_ERRORS as error:
            problem = problem or error
    assert problem is not None
    raise FullconvError(
        msg(
            "{name} does not run on an image of {height} x {width} pixels: {error}",
            name=name,
            height=size[0],
            width=size[1],
            error=first_line(problem)[:200],
        ),
        msg("fc.convolutionalize(classifier, size=224)   # the size that it accepts"),
    )


def _recording_module(network: fx.GraphModule, values: dict[str, Any]) -> nn.Module:
    """Return the graph as a module that records the results of its nodes. Its class has the
    classifier's name, by which operations are named."""

    def forward(self: Any, image: Tensor) -> Any:
        values.clear()
        return Recorder(self.network, values).run(image)

    module: nn.Module = type(type(network).__name__, (nn.Module,), {"forward": forward})()
    module.network = network
    return module


class Recorder(fx.Interpreter):
    """Run a graph and record the results of its nodes (only some) in `values`, by their names."""

    def __init__(
        self, network: fx.GraphModule, values: dict[str, Any], only: Collection[str] | None = None
    ) -> None:
        super().__init__(network)
        self.extra_traceback = False
        self.values, self.only = values, only

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if self.only is None or node.name in self.only:
            self.values[node.name] = value
        return value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        # A graph's lists are immutable, and some modules change the list that they get.
        copies = tuple(list(value) if isinstance(value, list) else value for value in args)
        return super().call_module(target, copies, kwargs)


@contextmanager
def _closed_modules(classifier: nn.Module) -> Iterator[set[str]]:
    """Yield a set that fills with the names of modules that return feature maps, as they run."""
    closed: set[str] = set()
    opened: set[str] = set()

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            tracked = [isinstance(layout_of(t), SpatialLayout) for t in iter_tensors(output)]
            layer = type(module).__module__.startswith("torch.nn")
            tokens = bool(tracked) and all(tracked) and not layer  # closed, to name it in an error
            if not tokens and not _belongs_to_backbone(output, collapsed=False):
                opened.add(name)
            if type(module) in (nn.AvgPool2d, nn.MaxPool2d) and _collapses(given[0], output):
                # Pooling of the whole map, written with a fixed size.
                parts = name.split(".")
                opened.update(".".join(parts[:n]) for n in range(1, len(parts) + 1))
            closed.add(name)

        return hook

    with forward_hooks(classifier, record):
        yield closed
    closed -= opened


def _collapses(given: Tensor, output: Tensor) -> bool:
    """Return whether a pooling makes one cell of a map of several."""
    return tuple(output.shape[2:]) == (1, 1) != tuple(given.shape[2:])


class _Tracer(fx.Tracer):
    """Trace into every module that is not closed, and keep track of the current module."""

    def __init__(self, closed: set[str]) -> None:
        super().__init__()
        self.closed = closed
        self.inside: list[str] = []

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return name in self.closed or type(module) in LAYERS

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.inside.append(self.path_of_module(module))
        output = super().call_module(module, forward, args, kwargs)
        self.inside.pop()  # not after an error, so that `_graph` can read it
        return output


def _graph(
    classifier: nn.Module, closed: set[str], name: str, state: State | None
) -> fx.GraphModule:
    """Return the classifier in evaluation mode, with its closed modules as single nodes. A module
    whose control flow depends on tensors cannot be traced and stays closed too."""
    parameters = list(inspect.signature(classifier.forward).parameters.values())[1:]
    fixed = {p.name: p.default for p in parameters if p.default is not p.empty}
    classifier.eval()
    closed = set(closed)
    while True:
        tracer = _Tracer(closed)
        try:
            graph = tracer.trace(classifier, concrete_args=fixed)
            return fx.GraphModule(classifier, graph, class_name=type(classifier).__name__)
        except Exception as error:  # anything that the classifier's code may raise for a proxy
            if tracer.inside:
                closed.add(tracer.inside[-1])
                continue
            message = msg(
                "{name} cannot be convolutionalized: the control flow of its forward depends on "
                "tensors ({error}).",
                name=name,
                error=first_line(error)[:200],
            )
            hint = msg("move `if` and loops over tensors into modules that return feature maps")
            raise FullconvError(with_whole_image_note(message, state), hint) from error


def with_whole_image_note(message: Message, state: State | None) -> Message:
    """Return a message with a note on the operations that computed a classifier's scores from the
    whole image; the pooling at the end of every backbone is left out."""
    names = [n for n in whole_image_operations(state) if not n.endswith("(global pooling)")]
    if not names:
        return message
    note = msg(
        "Its scores are computed from the whole image by {operations}.", operations=", ".join(names)
    )
    return join([message, note], " ")


def whole_image_operations(state: State | None) -> list[str]:
    """Return the names of the operations that saw the whole image."""
    return sorted(state.reasons if isinstance(state, Untracked) else state.whole if state else ())


def _find_backbone(network: fx.GraphModule, values: dict[str, Any]) -> frozenset[str]:
    """Return the nodes that lead to feature maps, and those that do not depend on the image."""
    collapsed: set[fx.Node] = set()
    backbone: set[str] = set()
    for node in network.graph.nodes:
        if any(given in collapsed for given in node.all_input_nodes) or _is_collapse(node, values):
            collapsed.add(node)
        if node.op in ("placeholder", "get_attr"):
            backbone.add(node.name)
        elif node.op != "output" and _belongs_to_backbone(values[node.name], node in collapsed):
            ancestors = [node]
            while ancestors:
                ancestor = ancestors.pop()
                backbone.add(ancestor.name)
                ancestors.extend(n for n in ancestor.all_input_nodes if n.name not in backbone)
    return frozenset(backbone)


def _belongs_to_backbone(value: Any, collapsed: bool) -> bool:
    """Return whether a value is a feature map (of more than one cell, if it comes after a pooling
    of the whole map), or does not depend on the image."""
    tensors = iter_tensors(value)
    states = [layout_of(tensor) for tensor in tensors]
    if all(state is None for state in states):
        return bool(tensors)
    return all(is_feature_map(state) for state in states) and (
        not collapsed or any(max(tensor.shape[2:]) > 1 for tensor in tensors)
    )


def is_feature_map(state: State | None) -> bool:
    """Return whether a tensor has rows, columns, channels and a batch, in any order; no tokens and
    no parts of windows."""
    if not isinstance(state, SpatialLayout):
        return False
    along = [str(dim) for dim in state.dims if dim is not None]
    return len(state.dims) == 4 and sorted(along) == ["(0, 1)", "(1, 1)"]


def _is_collapse(node: fx.Node, values: dict[str, Any]) -> bool:
    if node.op != "call_function" or operation(node) not in POOLS:
        return False
    given = values[node.all_input_nodes[0].name]
    return given.ndim == 4 and _collapses(given, values[node.name])


def operation(node: fx.Node) -> str:
    """Return the operation's name, as in `fullconv.geometry.op_rules`."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    # torch.nn.functional.max_pool2d has the name of its dispatcher.
    return {"boolean_dispatch": "max_pool2d", "fn": "max_pool2d"}.get(name, name.strip("_"))
