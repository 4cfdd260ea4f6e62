"""The end of a classifier, made to slide over its feature maps (Long et al. 2015, section 3.1).

On an image of the classifier's own size the end reads one window, the whole map. Here the same
weights read the window at every cell: pooling over the map becomes pooling with windows of that
size, stride 1; a fully connected layer becomes a convolution, as large as the window where the map
was flattened into it, 1x1 elsewhere; flattening and dropout vanish; normalisation over the channels
is one at each cell. What cannot be rewritten so is refused by name.

Every value of the end is (N, C, h, w) in the network made here. `View` says what it was in the
classifier.
"""

from __future__ import annotations

import copy

from torch import fx

from fullconv.core.errors import FullconvError
from fullconv.geometry.op_rules import ELEMENTWISE, iter_tensors
from fullconv.network.dense.classifier_graph import ClassifierGraph, operation, seen
from fullconv.network.dense.rewrite_rules import LAYERS, RULES, Rule, closed_module, elementwise
from fullconv.network.dense.tensor_layout import POOLED, End, UnlikeError


def slide(opened: ClassifierGraph, name: str) -> fx.GraphModule:
    """The network that gives (N, K, h, w) where the classifier, called by this name, gives (N, K).

    Raises:
        FullconvError: an operation of the end cannot slide; it is named.
    """
    network = fx.GraphModule(
        opened.network,
        copy.deepcopy(opened.network.graph),
        class_name=type(opened.network).__name__,
    )
    end = End(network, opened)
    old = [node for node in network.graph.nodes if node.name not in opened.kept]
    for node in old:
        try:
            _rewrite(end, node)
        except UnlikeError as reason:
            raise FullconvError(
                f"{name} cannot be made dense: {reason}.{seen(opened.state)}",
                'fc.convolutionalize("resnet18")   # or another that pools over its map',
            ) from None
    for node in reversed(old):
        if node.op != "output":
            network.graph.erase_node(node)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.graph.lint()
    network.recompile()
    return network


def _rewrite(end: End, node: fx.Node) -> None:
    """Adds what stands for a node, before it."""
    with end.graph.inserting_before(node):
        views = [end.view_of(given) for given in node.all_input_nodes]
        if node.op == "output":
            _finish(end, node)
        elif iter_tensors(end.values[node.name]) and any(views):
            end.views[node] = _rule(end, node)(end, node)
        # Else sizes and the like, which are taken as they are for one window.


def _rule(end: End, node: fx.Node) -> Rule:
    if node.op == "call_module":
        return LAYERS.get(type(end.network.get_submodule(str(node.target))), closed_module)
    name = operation(node)
    if name in RULES:
        return RULES[name]
    if name in ELEMENTWISE:
        return elementwise
    raise UnlikeError(f"its end holds the operation {name!r}")


def _finish(end: End, node: fx.Node) -> None:
    result = node.args[0]
    if not isinstance(result, fx.Node) or (view := end.view_of(result)) is None:
        raise UnlikeError("it returns something other than class scores")
    if view.dims != POOLED:
        raise UnlikeError("its scores are not those of one window")
    node.args = (view.node,)
