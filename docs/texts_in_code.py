"""Reads, from the source alone, every text that Fullconv may say to a person.

A text in the code is an f-string with holes. What a hole is filled with is followed as far as the
source tells: names to their assignments, parameters to the calls, functions to what they return,
tables to their values. What is a value (a path, a number, a class name) stays a hole, `{path}`;
what is itself words that are written somewhere in the code is a hole of words, `{what~}`, and
those words are texts of their own.

Nothing is run or imported: only the syntax trees of src/fullconv are looked at.
"""

from __future__ import annotations

import ast
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "fullconv"
_DEEP = 12  # steps that a value is followed
_WIDE = 24  # alternatives of one text
# Holes of these names are for words, wherever those come from.
_PASTED = {"again", "ahead", "fix", "hint", "line", "usage"}  # these for what is to be typed
_WORDY = _PASTED | {
    *(
        "caveat",
        "engine",
        "error",
        "how",
        "left_out",
        "message",
        "note",
        "problem",
        "reason",
        "said",
    ),
    *("text", "what", "why", "words", "wrong"),
}
# Functions that return text for people, line by line.
PRINTED = {
    "cli.py": ("train", "evaluate", "demo"),
    "choices.py": ("_from_data", "_whole", "_crop", "_scale", "_weights", "_converted"),
    "completion_command.py": ("completion",),
    "data/ceiling.py": ("text", "reason", "_reason"),
    "inspect.py": ("_tiles", "_lines", "_model", "_backbone"),
    "data/check.py": ("text", "_head", "_class_table", "_paragraph", "raise_for_errors"),
    "data/convert.py": ("text",),
    "data/findings/meanings.py": ("meanings_text",),
    "data/fix.py": ("text",),
    "data_commands.py": ("_with_stride", "check"),
    "demo.py": ("text_of",),
    "doctor.py": ("text", "_sizes", "_tried"),
    "engine.py": ("describe",),
    "export.py": ("text",),
    "export_command.py": ("_next",),
    "language.py": ("failure",),
    "metrics.py": ("headline", "table", "_table"),
    "paper_commands.py": ("heatmap",),
    "predict_command.py": ("_text",),
    "probe.py": ("table",),
    "stages.py": ("table",),
    "terminal.py": ("emit",),
    "training.py": ("_summary",),
}


_LISTS = ("notes.append", "reasons.append", "wrong.append")  # of texts


@dataclass(frozen=True)
class Hole:
    """A place in a text. `words`: it is filled with words of the code, which are translated too."""

    name: str
    words: bool = False


Text = tuple[str | Hole, ...]


@dataclass
class Said:
    """One text.

    Args:
        kind: "message" (of an error or a finding), "hint" (a line below one), "line" (of what is
            printed beside), "words" (what stands in a hole of words).
        text: its pieces.
        places: module and line, each once.
        hints: of a message, the texts that may stand below it.
    """

    kind: str
    text: Text
    places: list[tuple[str, int]] = field(default_factory=list)
    hints: list[Text] = field(default_factory=list)


def shape(text: Text) -> tuple[str | None, ...]:
    """What a text is known by: its words, with None for each hole."""
    return tuple(piece if isinstance(piece, str) else None for piece in text)


def has_words(text: Text | str) -> bool:
    """Whether there is something to translate in it, outside its holes."""
    pieces = [text] if isinstance(text, str) else [p for p in text if isinstance(p, str)]
    return any(char.isalpha() for piece in pieces for char in piece)


def _worth(text: Text) -> bool:
    """Whether a text has words of its own, or a hole for words."""
    return has_words(text) or any(isinstance(piece, Hole) and piece.words for piece in text)


def joined(pieces: Iterable[str | Hole]) -> Text:
    """Words side by side become one piece, and holes side by side one hole."""
    found: list[str | Hole] = []
    for piece in pieces:
        if piece == "":
            continue
        last = found[-1] if found else None
        if isinstance(piece, str) and isinstance(last, str):
            found[-1] = last + piece
        elif isinstance(piece, Hole) and isinstance(last, Hole):
            found[-1] = Hole(last.name, last.words or piece.words)
        else:
            found.append(piece)
    return tuple(found)


def _distinct(texts: Iterable[Text]) -> list[Text]:
    """Each once; a hole that holds words in one of them holds words."""
    found: dict[tuple[str | None, ...], Text] = {}
    for text in texts:
        found[shape(text)] = either(found.get(shape(text), text), text)
    return list(found.values())


def either(one: Text, other: Text) -> Text:
    """Of two texts of one shape, with the words of both."""
    return tuple(
        Hole(a.name, a.words or b.words) if isinstance(a, Hole) and isinstance(b, Hole) else a
        for a, b in zip(one, other, strict=True)
    )


def lines(text: Text) -> list[Text]:
    """A text line by line."""
    found: list[list[str | Hole]] = [[]]
    for piece in text:
        parts = piece.split("\n") if isinstance(piece, str) else [piece]
        found[-1].append(parts[0])
        found += [[part] for part in parts[1:]]
    return [joined(line) for line in found if joined(line)]


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: its module, and the functions around it, the innermost last."""

    module: str
    functions: tuple[ast.FunctionDef | ast.AsyncFunctionDef, ...] = ()


class Reader:
    """The whole source."""

    def __init__(self, source: Path = SOURCE) -> None:
        self.trees: dict[str, ast.Module] = {}
        self.scopes: dict[ast.AST, Scope] = {}
        self.functions: dict[str, list[ast.FunctionDef]] = defaultdict(list)
        self.calls: dict[str, list[ast.Call]] = defaultdict(list)
        self.errors = {"FullconvError"}
        self.texts: dict[tuple[str | None, ...], Said] = {}
        for path in sorted(source.rglob("*.py")):
            module = path.relative_to(source).as_posix()
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self.trees[module] = tree
            self._index(tree, Scope(module))
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                    bases = {ast.unparse(base) for base in node.bases}
                    if bases & self.errors:
                        self.errors.add(node.name)

    def _index(self, node: ast.AST, scope: Scope) -> None:
        self.scopes[node] = scope
        if isinstance(node, ast.Call):
            self.calls[_called(node)].append(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.functions[node.name].append(node)  # type: ignore[arg-type]
            scope = Scope(scope.module, (*scope.functions, node))
        for child in ast.iter_child_nodes(node):
            self._index(child, scope)

    # What a value may be.

    def values(self, node: ast.expr, deep: int = 0) -> list[Text] | None:
        """The texts that an expression may have; None where it is no text of the code."""
        if deep > _DEEP:
            return None
        found = self._values(node, deep + 1)
        if found is not None:
            found = _distinct(found)
        return found if found is None or len(found) <= _WIDE else None

    def _values(self, node: ast.expr, deep: int) -> list[Text] | None:
        match node:
            case ast.Constant(value=str(text)):
                return [joined([text])]
            case ast.JoinedStr():
                return _products([self._part(part, deep) for part in node.values])
            case ast.BinOp(op=ast.Add()):
                sides = [self._filled(side, deep) for side in (node.left, node.right)]
                texty = [self.values(side, deep) for side in (node.left, node.right)]
                return _products(sides) if any(t is not None for t in texty) else None
            case ast.BinOp(op=ast.Mult(), left=left):
                repeated = self.values(left, deep)
                return None if repeated is None else [(), *repeated]
            case ast.IfExp():
                return self._either([node.body, node.orelse], deep)
            case ast.BoolOp():
                return self._either(node.values, deep)
            case ast.Name():
                return self._name(node, deep)
            case ast.NamedExpr():
                return self.values(node.value, deep)
            case ast.Attribute(attr="message"):
                return [(Hole("message", True),)]
            case ast.Attribute(attr="strerror"):
                return [(Hole("reason", True),)]
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if name in self.functions:
                known = self._function(name, self.scopes[node].module)
                return self._returned(known, deep) if known is not None else None
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                module = self._module(owner, self.scopes[node].module)
                constant = self._constant(name, module) if module else None
                return None if constant is None else self.values(constant, deep)
            case ast.Subscript(value=ast.Name(id=name)):
                table = self._constant(name, self.scopes[node].module)
                if isinstance(table, (ast.Dict, ast.Tuple)):
                    items = table.values if isinstance(table, ast.Dict) else table.elts
                    return self._either(items, deep)
                return None
            case ast.Subscript(value=ast.Dict() as table):
                return self._either(table.values, deep)
            case ast.Subscript(value=ast.Tuple() as pair):
                return self._either(pair.elts, deep)
            case ast.Call():
                return self._call(node, deep)
        return None

    def _either(self, nodes: Iterable[ast.expr], deep: int) -> list[Text] | None:
        found = [(node, self.values(node, deep)) for node in nodes]
        if all(texts is None for _, texts in found):
            return None
        return [t for node, texts in found for t in texts or [(Hole(_named(node)),)]]

    def _part(self, node: ast.expr, deep: int) -> list[Text]:
        """Of an f-string: literal words or a hole."""
        if isinstance(node, ast.FormattedValue):
            if node.format_spec is not None and isinstance(node.value, ast.Constant):
                return [_padded(node.value.value, node.format_spec)]
            if node.format_spec is not None and isinstance(node.value, ast.JoinedStr):
                return [
                    joined([*text, Hole("blanks")]) for text in self.values(node.value, deep) or ()
                ]
            if node.conversion == ord("r") or node.format_spec is not None:
                return [(Hole(_named(node.value)),)]
            return self._filled(node.value, deep)
        return self.values(node, deep) or [()]

    def _filled(self, node: ast.expr, deep: int) -> list[Text]:
        """What stands in a hole: its one text, or a text with and one without it; several other
        texts are words on their own."""
        found = self.values(node, deep)
        if found is None:
            return [(Hole(_named(node), _named(node) in _WORDY),)]
        if not any(map(_worth, found)):
            plain = len(found) == 1 and all(isinstance(piece, str) for piece in found[0])
            return found if plain else [(Hole(_named(node)),)]
        if len(found) == 1 and _called(node) != "some":
            return found
        if () in found:
            rest = [text for text in found if text]
            return [(), *(rest if len(rest) == 1 else self._worded(node, rest))]
        return self._worded(node, found)

    def _worded(self, node: ast.expr, found: list[Text]) -> list[Text]:
        for text in found:
            several = lines(text)
            for line in several if len(several) > 1 else [text]:
                self.keep("words", line, node)
        return [(Hole(_named(node), True),)]

    def _name(self, node: ast.Name, deep: int) -> list[Text] | None:
        scope = self.scopes[node]
        for depth in range(len(scope.functions), 0, -1):
            function = scope.functions[depth - 1]
            bound = self._assigned(function, node.id, deep)
            places = [a.arg for a in _arguments(function)]
            if bound is not None or (node.id not in places and _binds(function, node.id)):
                return bound
            if node.id in places:
                return self._given(function, node.id, places, deep)
        constant = self._constant(node.id, scope.module)
        return None if constant is None else self.values(constant, deep)

    def _assigned(self, function: ast.AST, name: str, deep: int) -> list[Text] | None:
        found: list[Text] = []
        known, added = False, []
        for node in ast.walk(function):
            targets: list[tuple[ast.expr, ast.expr]] = []
            if isinstance(node, ast.Assign):
                targets = [(target, node.value) for target in node.targets]
            elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
                targets = [(node.target, node.value)]
            elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
                if isinstance(node.target, ast.Name) and node.target.id == name:
                    added.append(node.value)
            elif isinstance(node, (ast.For, ast.comprehension)):
                items = self._items(node.iter)
                targets = [(node.target, item) for item in items]
            for target, value in targets:
                if isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name):
                    value = self._constant(value.value.id, self.scopes[value].module) or value
                for one in _bound(target, value, name):
                    texts = self.values(one, deep)
                    known = known or texts is not None
                    found += [(Hole(_named(one)),)] if texts is None else texts
        for more in added:
            texts = self._filled(more, deep)
            found += [joined([*text, *end]) for text in found for end in texts]
        return found if known else None

    def _items(self, node: ast.expr) -> list[ast.expr]:
        """Of what a loop goes over, where the source says it."""
        if isinstance(node, ast.Name):
            node = self._constant(node.id, self.scopes[node].module) or self._local(node) or node
        if isinstance(node, (ast.Tuple, ast.List)):
            return list(node.elts)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            table = node.func.value
            if isinstance(table, ast.Name):
                table = self._constant(table.id, self.scopes[table].module) or table
            if isinstance(table, ast.Dict) and node.func.attr == "items":
                pairs = zip(table.keys, table.values, strict=True)
                return [ast.Tuple([k, v], ast.Load()) for k, v in pairs if k is not None]
        return []

    def _local(self, node: ast.Name) -> ast.expr | None:
        for function in self.scopes[node].functions[::-1]:
            for one in ast.walk(function):
                if (
                    isinstance(one, ast.Assign)
                    and isinstance(one.targets[0], ast.Name)
                    and one.targets[0].id == node.id
                ):
                    return one.value
        return None

    def _given(
        self,
        function: ast.FunctionDef | ast.AsyncFunctionDef,
        name: str,
        places: list[str],
        deep: int,
    ) -> list[Text] | None:
        """What the calls of a function give for a parameter."""
        nodes: list[ast.expr] = []
        method = places[:1] in (["self"], ["cls"])
        called = [function.name]
        if function.name == "__init__":
            called = [
                n.name
                for n in ast.walk(self.trees[self.scopes[function].module])
                if isinstance(n, ast.ClassDef) and function in n.body
            ]
        for call in (c for name_ in called for c in self.calls[name_]):
            if (
                function.name != "__init__"
                and self._function(function.name, self.scopes[call].module) is not function
            ):
                continue
            keyword = next((k.value for k in call.keywords if k.arg == name), None)
            position = places.index(name) - method
            if keyword is not None:
                nodes.append(keyword)
            elif position < len(call.args) and not any(
                isinstance(a, ast.Starred) for a in call.args
            ):
                nodes.append(call.args[position])
        for parameter, default in _defaults(function) if nodes else ():
            if parameter == name and not (isinstance(default, ast.Constant) and not default.value):
                nodes.append(default)
        return self._either(nodes, deep) if nodes else None

    def _constant(self, name: str, module: str) -> ast.expr | None:
        """What a module, or the one that it has the name from, binds a name to."""
        for node in self.trees[module].body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == name for t in node.targets
            ):
                return node.value
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.target.id == name
            ):
                return node.value
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                for one in _bound(node.targets[0], node.value, name):
                    return one
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and any((a.asname or a.name) == name for a in node.names)
            ):
                path = node.module.removeprefix("fullconv.").replace(".", "/") + ".py"
                original = next(a.name for a in node.names if (a.asname or a.name) == name)
                return self._constant(original, path) if path in self.trees else None
        return None

    def _function(self, name: str, module: str) -> ast.FunctionDef | None:
        """The function that a name stands for in a module: its own, what it imports, or the only
        one of that name."""
        known = self.functions.get(name, [])
        own = [one for one in known if self.scopes[one].module == module]
        if not own:
            for node in self.trees[module].body:
                if (
                    isinstance(node, ast.ImportFrom)
                    and node.module
                    and any(a.name == name for a in node.names)
                ):
                    path = node.module.removeprefix("fullconv.").replace(".", "/") + ".py"
                    own = [one for one in known if self.scopes[one].module == path]
        found = own or known
        return found[0] if len(found) == 1 else None

    def _module(self, name: str, module: str) -> str:
        """The module that a name stands for in another one, where it does."""
        for node in self.trees[module].body:
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and any((a.asname or a.name) == name for a in node.names)
            ):
                path = f"{node.module}.{name}".removeprefix("fullconv.").replace(".", "/")
                return f"{path}.py" if f"{path}.py" in self.trees else ""
        return ""

    def _call(self, node: ast.Call, deep: int) -> list[Text] | None:
        name = _called(node)
        if name == "plural":
            return self._plural(node, deep)
        if name == "some":
            return [(Hole(_named(node.args[0]), True),)]
        if name == "command":
            return [(Hole("command"),)]
        if name == "indent":
            return self.values(node.args[0], deep)
        if name in ("rstrip", "strip", "lstrip", "capitalize") and isinstance(
            node.func, ast.Attribute
        ):
            return self.values(node.func.value, deep)
        if name == "replace" and isinstance(node.func, ast.Attribute):
            return None
        if name == "join" and isinstance(node.func, ast.Attribute) and node.args:
            return self._joined(node, deep)
        known = self._function(name, self.scopes[node].module)
        if known is None or name in ("read", "get", "shape"):
            return None
        return self._returned(known, deep)

    def _returned(self, known: ast.FunctionDef, deep: int) -> list[Text] | None:
        returned = [
            one.value
            for one in ast.walk(known)
            if isinstance(one, ast.Return)
            and one.value is not None
            and self.scopes[one].functions[-1] is known
        ]
        kind = ast.unparse(known.returns) if known.returns else ""
        if not returned or kind not in ("str", "str | None"):
            return None
        return self._either(returned, deep)

    def _plural(self, node: ast.Call, deep: int) -> list[Text] | None:
        if isinstance(node.args[-1], ast.Starred):
            return [(Hole(_named(node.args[-1].value), True),)]
        ones = self._filled_apart(node.args[1], deep)
        manys = (
            self._filled_apart(node.args[2], deep)
            if len(node.args) > 2
            else [joined([*one, "s"]) for one in ones]
        )
        count = Hole("count")  # of this name: a whole number
        return [joined([count, " ", *words]) for words in (*ones, *manys)]

    def _filled_apart(self, node: ast.expr, deep: int) -> list[Text]:
        return self.values(node, deep) or [(Hole(_named(node)),)]

    def _joined(self, node: ast.Call, deep: int) -> list[Text] | None:
        """Pieces in a row: words where the pieces are."""
        given = node.args[0]
        pieces = list(self._pieces(given))
        found = [t for piece in pieces for t in self.values(piece, deep) or []]
        worded = [text for text in found if _worth(text)]
        if not worded:
            separator = node.func.value.value if isinstance(node.func.value, ast.Constant) else ""
            if has_words(str(separator)):
                return [(Hole(_named(given), True),)]
            return None
        between = node.func.value.value if isinstance(node.func.value, ast.Constant) else ""
        kind = "line" if "\n" in str(between) else "words"
        for text in worded:
            for line in lines(text):
                self.keep(kind, _stripped(line), node)
        return [(Hole(_named(given), True),)]

    def _pieces(self, node: ast.expr | None, deep: int = 0) -> Iterator[ast.expr]:
        """The elements of a list, where the source says them."""
        match node:
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                for part in parts:
                    if isinstance(part, ast.Starred):
                        yield from self._pieces(part.value, deep)
                    else:
                        yield part
            case ast.ListComp(elt=part) | ast.GeneratorExp(elt=part):
                yield part
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                yield from self._pieces(left, deep)
                yield from self._pieces(right, deep)
            case ast.BinOp(op=ast.Mult(), left=left):
                yield from self._pieces(left, deep)
            case ast.IfExp(body=left, orelse=right):
                yield from self._pieces(left, deep)
                yield from self._pieces(right, deep)
            case ast.Name(id=name) if deep < 4:
                for function in self.scopes[node].functions[-1:]:
                    for one in ast.walk(function):
                        match one:
                            case (
                                ast.Assign(targets=[ast.Name(id=to)], value=value)
                                | ast.AnnAssign(target=ast.Name(id=to), value=value)
                                | ast.AugAssign(target=ast.Name(id=to), value=value)
                            ) if to == name:
                                yield from self._pieces(value, deep + 1)
                            case ast.Call(
                                func=ast.Attribute(value=ast.Name(id=to), attr="append"),
                                args=[value],
                            ) if to == name:
                                yield value

    # What is kept.

    def keep(self, kind: str, text: Text, node: ast.AST) -> Said | None:
        text = joined(text)
        if not text or (len(text) == 1 and isinstance(text[0], Hole)):
            return None
        if not _worth(text):
            return None
        found = self.texts.get(shape(text))
        if found is None:
            found = self.texts[shape(text)] = Said(kind, text)
        else:
            found.text = either(found.text, text)
            order = ("message", "hint", "line", "words")
            found.kind = min(found.kind, kind, key=order.index)
        place = (self.scopes[node].module, getattr(node, "lineno", 0))
        if place not in found.places:
            found.places.append(place)
        return found

    def read(self) -> list[Said]:
        """All of them, in the order of the source."""
        more = self.functions["some"][0]  # a list that is cut off, in any hole for words
        for text in self._returned(more, 0) or ():
            self.keep("words", text, more)
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    self._said_by(node)
                elif isinstance(node, ast.FunctionDef) and node.name in PRINTED.get(module, ()):
                    self._printed(node)
                elif isinstance(node, (ast.Assign, ast.AugAssign)):
                    if _names(node) & _PASTED:
                        self._hints(node.value)
                    elif _names(node) & _WORDY:
                        listed = self._pieces(node.value) if "wrong" in _names(node) else ()
                        for piece in (node.value, *listed):
                            self._lines("words", piece)
                    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                    if isinstance(target, ast.Subscript) and _named(target.value) == "done":
                        self._lines("words", target.slice)
                elif isinstance(node, ast.Dict):
                    for key, value in zip(node.keys, node.values, strict=True):
                        if isinstance(key, ast.Constant) and key.value in _WORDY - _PASTED:
                            self._lines("words", value)
        return list(self.texts.values())

    def _said_by(self, node: ast.Call) -> None:
        name = _called(node)
        if name in self.errors and node.args:
            start = int(name == "RefusedError")
            self._message(node, node.args[start], node.args[start + 1 : start + 2])
        elif name.endswith("Error") and node.args:
            if (
                name in self.functions
                or name[0] == "_"
                or name in ("UnlikeError", "ValueError", "FormParserError")
            ):
                for text in self.values(node.args[0]) or ():
                    self.keep("words", text, node)
        elif name == "Finding" and len(node.args) >= 5:
            self._message(node, node.args[2], node.args[4:5])
        elif name == "add" and len(node.args) == 3:  # of doctor
            self._lines("words", node.args[0])
            self._message(node, node.args[1], node.args[2:3])
        elif name == "_told" and len(node.args) >= 4:  # of the server
            self._message(node, node.args[2], node.args[3:4])
        elif name in ("say", "said", "counting", "line") and node.args:
            self._lines("line", node.args[0])
        elif name == "Found" and node.args:
            self._lines("words", node.args[0])
        elif name == "print" and any("stderr" in ast.unparse(k.value) for k in node.keywords):
            self._lines("line", node.args[0])
        elif name == "append" and ast.unparse(node.func).endswith(_LISTS):
            self._lines("words", node.args[0])
        elif name == "warn" and node.args:
            self._lines("line", node.args[0])
        elif name == "emit":
            for keyword in node.keywords:
                if keyword.arg == "ahead":
                    self._hints(keyword.value)

    def _message(self, call: ast.Call, node: ast.expr, hints: list[ast.expr]) -> None:
        found = [t for hint in hints for t in self._hints(hint)]
        for text in self.values(node) or [(Hole("message"),)]:
            said = self.keep("message", text, call)
            if said is not None:
                said.hints += [hint for hint in found if hint not in said.hints]

    def _hints(self, node: ast.expr) -> list[Text]:
        texts = self.values(node) or []
        for text in texts:
            for line in lines(text):
                for part in parts_of_hint(line):
                    self.keep("hint", part, node)
        return texts

    def _lines(self, kind: str, node: ast.expr) -> None:
        for text in self.values(node) or ():
            for line in lines(text):
                self.keep(kind, _stripped(line), node)

    def _printed(self, function: ast.FunctionDef) -> None:
        """Every f-string and text with words that stands in a function by itself."""
        inner: set[ast.AST] = set()
        used = {
            name.id
            for node in ast.walk(function)
            if isinstance(node, ast.JoinedStr)
            for name in ast.walk(node)
            if isinstance(name, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and _named(node.targets[0]) in used - {"head", "foot"}:
                inner |= set(ast.walk(node.value))  # a part of another one
            added = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)
            if isinstance(node, ast.JoinedStr) or (added and self.values(node) is not None):
                inner |= {child for child in ast.walk(node) if child is not node}
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                inner.add(node.value)  # a docstring
            if isinstance(node, ast.Subscript):
                inner |= set(ast.walk(node.slice))
            if isinstance(node, ast.Compare):
                inner |= set(ast.walk(node))
            if isinstance(node, ast.Dict):
                inner |= {key for key in node.keys if key is not None}
            if isinstance(node, ast.arguments):
                inner |= set(ast.walk(node))
            if isinstance(node, ast.Call) and _called(node) in (
                "command",
                "get",
                "emit",
                "getattr",
            ):
                inner |= set(ast.walk(node))
        for node in ast.walk(function):
            text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if node not in inner and (text or isinstance(node, (ast.JoinedStr, ast.BinOp))):
                self._lines("line", node)  # type: ignore[arg-type]


_COMMENT = "   # "
_HEADS = (
    "--", "-", "fullconv", "pip ", "ls ", "cp ", "mv ", "rm ", "mkdir", "echo", "python", "chmod",
    "export FULLCONV", "export OMP", "export XDG", "unset", "df -h", "free -h", "curl",
    "docker", "find ", "gdal", "ffmpeg", "nvidia",
    "grep", "sudo", "[", "#", "/", "names:", "fc.", "torch.", "np.", "scipy.", "model(", "Image.",
    "safetensors.", "timm.", "array", "cell=", "size=", "seed=", "labels=", "Labels(", "write(",
    "kernel_size", "read_channels", "classifier(", "module(", "x.mean", "return [", "target =",
    "label_smoothing", "class_weights", "placement=", "upsampling=", "scores.loss", "legend(",
    "draw.", "num_classes=", "alpha=", "name =", "source =", "options =", "weights =", "missing =",
    "layout =", "root =", "classes =", "ignore_index", "road =", "snapshot_format", "1: ",
    "FULLCONV", "GET ", "XDG", "cd ", "images/", "masks =", "images =", "(array", "npm", '"',
)  # fmt: skip


def parts_of_hint(line: Text) -> list[Text]:
    """What is words in a line of a hint: the comment behind a command, or a whole sentence."""
    for at, piece in enumerate(line):
        if isinstance(piece, str) and _COMMENT in piece:
            _, _, comment = piece.partition(_COMMENT)
            head = joined([*line[:at], piece.partition(_COMMENT)[0]])
            return [p for p in (*parts_of_hint(head), joined([comment, *line[at + 1 :]])) if p]
    first = next((piece for piece in line if isinstance(piece, str)), "")
    if isinstance(line[0], Hole) and not line[0].words:
        return [line] if first.startswith((":", " (")) else []
    return [] if first.lstrip().startswith(_HEADS) else [_stripped(line)]


def _stripped(text: Text) -> Text:
    """Without blanks at its ends."""
    pieces = list(text)
    if pieces and isinstance(pieces[0], str):
        pieces[0] = pieces[0].removeprefix(", ").lstrip()
    if pieces and isinstance(pieces[-1], str):
        pieces[-1] = pieces[-1].rstrip()
    return joined(pieces)


def _products(parts: list[list[Text]]) -> list[Text] | None:
    count = 1
    for part in parts:
        count *= max(1, len(part))
    if count > _WIDE:
        return None
    return [joined(itertools.chain(*chosen)) for chosen in itertools.product(*parts)]


def _padded(value: object, spec: ast.expr) -> Text:
    """A constant in a column; where its width is found later, the blanks are a hole."""
    parts = spec.values if isinstance(spec, ast.JoinedStr) else [spec]
    told = [part.value for part in parts if isinstance(part, ast.Constant)]
    if len(told) == len(parts):
        return joined([format(value, "".join(map(str, told)))])
    return joined([str(value), Hole("blanks")])


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _named(node: ast.expr) -> str:
    """What a hole is called."""
    match node:
        case ast.Name(id=name):
            return name.strip("_").lower()
        case ast.Attribute(attr=name):
            return name.strip("_")
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            return name if name.isidentifier() else "value"
        case ast.Subscript(value=value) | ast.Starred(value=value) | ast.Await(value=value):
            return _named(value)
        case ast.Call(func=ast.Name(id="len" | "sum")):
            return "count"
        case ast.Call(func=ast.Name(id="str" | "sorted" | "type" | "indent"), args=[value, *_]):
            return _named(value)
        case ast.Call(func=ast.Attribute(attr="join"), args=[value, *_]):
            return _named(value)
        case ast.Call(func=ast.Name(id="some"), args=[value, *_]):
            return _named(value)
        case ast.Call(
            func=ast.Attribute(
                value=value, attr="rstrip" | "lstrip" | "strip" | "splitlines" | "resolve"
            )
        ):
            return _named(value)
        case ast.Call(func=func):
            return _named(func)
        case ast.BoolOp(values=[value, *_]) | ast.IfExp(body=value) | ast.NamedExpr(value=value):
            return _named(value)
        case ast.BinOp():
            return "number"
        case ast.GeneratorExp(generators=[one]) | ast.ListComp(generators=[one]):
            return _named(one.iter)
    return "value"


def _names(node: ast.Assign | ast.AugAssign) -> set[str]:
    """What is assigned to: a name, and the key where it is an entry of that."""
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    found = {_named(target)}
    while isinstance(target, ast.Subscript):
        target = target.value
        found.add(_named(target))
    return found


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    args = function.args
    return [*args.posonlyargs, *args.args, *args.kwonlyargs]


def _defaults(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    args = function.args
    for arg, default in zip(args.args[::-1], args.defaults[::-1], strict=False):
        yield arg.arg, default
    for arg, given in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        if given is not None:
            yield arg.arg, given


def _binds(function: ast.AST, name: str) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
        for node in ast.walk(function)
    )


def _bound(target: ast.expr, value: ast.expr, name: str) -> list[ast.expr]:
    """What a name gets of an assignment; of a tuple, its part."""
    if isinstance(target, ast.Name):
        return [value] if target.id == name else []
    if isinstance(target, ast.Tuple):
        if isinstance(value, ast.IfExp):
            return _bound(target, value.body, name) + _bound(target, value.orelse, name)
        if isinstance(value, ast.Dict):
            return [found for one in value.values for found in _bound(target, one, name)]
        if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
            pairs = zip(target.elts, value.elts, strict=True)
            return [found for one, part in pairs for found in _bound(one, part, name)]
    return []


def written(text: Text) -> str:
    """A text as it stands in the file of translations: {name}, or {name~} for words."""
    names: dict[str, int] = defaultdict(int)
    found = []
    for piece in text:
        if isinstance(piece, str):
            found.append(piece.replace("{", "{{").replace("}", "}}"))
            continue
        names[piece.name] += 1
        number = names[piece.name]
        name = piece.name + (str(number) if number > 1 else "")
        found.append("{" + name + "~" * piece.words + "}")
    return "".join(found)
