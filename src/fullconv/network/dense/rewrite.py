"""Rewrite a classifier's head so that it slides over the feature maps (Long et al. 2015, §3.1).

On an image of the classifier's own size the head reads one window, the whole map. Here the same
weights read the window at every cell: pooling over the map becomes pooling with windows of that
size, stride 1; a fully connected layer becomes a convolution, as large as the window if the map was
flattened into it, else 1x1; flattening and dropout vanish; normalization over the channels is done
at each cell. Anything else is refused by name.

Every tensor of the head is (N, C, h, w) in the dense network; its `TensorLayout` describes what it
was in the classifier.
"""

from __future__ import annotations

import copy

from torch import fx

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.geometry.op_rules import ELEMENTWISE, iter_tensors
from fullconv.network.dense.classifier_graph import (
    ClassifierGraph,
    operation,
    with_whole_image_note,
)
from fullconv.network.dense.rewrite_rules import LAYERS, RULES, Rule, closed_module, elementwise
from fullconv.network.dense.tensor_layout import POOLED, HeadRewriter, UnsupportedError


def rewrite_head(classifier: ClassifierGraph, name: str) -> fx.GraphModule:
    """Return the network that computes (N, K, h, w) where the classifier computes (N, K). An error
    names the operation of the head that cannot slide."""
    network = fx.GraphModule(
        classifier.network,
        copy.deepcopy(classifier.network.graph),
        class_name=type(classifier.network).__name__,
    )
    head = HeadRewriter(network, classifier)
    old = [node for node in network.graph.nodes if node.name not in classifier.backbone]
    for node in old:
        try:
            with network.graph.inserting_before(node):
                _rewrite(head, node)
        except UnsupportedError as error:
            message = msg(
                "{name} cannot be convolutionalized: {reason}.", name=name, reason=error.message
            )
            hint = msg('fc.convolutionalize("resnet18")   # or another network with global pooling')
            raise FullconvError(with_whole_image_note(message, classifier.state), hint) from None
    for node in reversed(old):
        if node.op != "output":
            network.graph.erase_node(node)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.graph.lint()
    network.recompile()
    return network


def _rewrite(head: HeadRewriter, node: fx.Node) -> None:
    """Add what replaces a node before it. Sizes and similar stay as they are for one window."""
    layouts = [head.layout(given) for given in node.all_input_nodes]
    if node.op == "output":
        result = node.args[0]
        if not isinstance(result, fx.Node) or (layout := head.layout(result)) is None:
            raise UnsupportedError(msg("it returns something other than class scores"))
        if layout.dims != POOLED:
            raise UnsupportedError(msg("its scores are not those of one window"))
        node.args = (layout.node,)
    elif iter_tensors(head.values[node.name]) and any(layouts):
        head.layouts[node] = _find_rule(head, node)(head, node)


def _find_rule(head: HeadRewriter, node: fx.Node) -> Rule:
    if node.op == "call_module":
        return LAYERS.get(type(head.network.get_submodule(str(node.target))), closed_module)
    name = operation(node)
    if name in RULES:
        return RULES[name]
    if name in ELEMENTWISE:
        return elementwise
    raise UnsupportedError(msg("its head has the operation {name!r}", name=name))
