"""Counts the work of Python code on texts, the same on every machine: no clock is asked.

`counted` compiles modules anew, with whatever can cost more than one step wrapped:

- a round of a loop and an element of a comprehension cost 1;
- a slice, a sum and an f-string cost the length of what they give;
- `x in y` costs the length of y, unless y is a set or a dict;
- a method of a text costs the stretch that it reads and the length of what it gives;
- another call of something written in C costs the lengths of its arguments and of its result;
- a call of a regular expression costs the steps that `Steps` takes;
- `unicodedata.normalize` costs the square of each run of marks besides, since CPython sorts them by insertion.

`Steps` is a plain backtracking matcher over the parse tree that `re` itself compiles, without its short cuts. What it
matches is held against what `re` matches, so that it can't count another pattern's work.
"""

from __future__ import annotations

import ast
import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import groupby
from types import BuiltinFunctionType, CodeType, MethodDescriptorType, ModuleType
from typing import Any

Matcher = Callable[[int], int]  # where to match from, to where the match ends, or NO
NO = -1
_SIZED = (str, bytes, list, tuple, dict, set, frozenset)
# One step, however large the owner or the arguments are.
_CONSTANT = {
    *("append", "add", "get", "setdefault", "pop", "popitem", "discard", "clear", "group", "start", "end", "span"),
    *("len", "isinstance", "issubclass", "getattr", "hasattr", "callable", "iter", "next", "ord", "chr", "id", "hash"),
    *("enumerate", "zip", "map", "filter", "reversed", "range", "repr", "combining", "category", "items", "keys"),
    *("values", "bisect_left", "bisect_right", "heappush", "heappop", "setattr", "type", "__new__", "__init__"),
}
_OF_RE = {"sub", "subn", "split", "search", "match", "fullmatch", "findall", "finditer"}
_PARTLY = {"find", "rfind", "index", "rindex", "count"}
_ENDS = {"startswith", "endswith"}


class Operations:
    """The count, and what the wrapped code calls."""

    def __init__(self) -> None:
        self.count = 0

    def tick(self) -> None:
        self.count += 1

    def rounds(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.count += 1
            yield value

    def sized(self, value: Any) -> Any:
        self.count += 1 + (len(value) if type(value) in _SIZED else 0)
        return value

    def contains(self, item: Any, container: Any) -> bool:
        self.count += 1 + (len(container) if isinstance(container, str | bytes | list | tuple) else 0)
        return item in container

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, re.Pattern):
            self.count += pattern_steps(owner, name, args, kwargs)
            return function(*args, **kwargs)
        if getattr(function, "__module__", None) == "re" and name in _OF_RE:
            return self.call(getattr(re.compile(args[0], kwargs.pop("flags", 0)), name), *args[1:], **kwargs)
        if function is unicodedata.normalize:
            self.count += _sorted_marks(args[1])
        result = function(*args, **kwargs)
        if isinstance(owner, str | bytes):
            self.count += _stretch(owner, name, args, result)
        elif name not in _CONSTANT and _is_c(function):
            own = () if name in ("extend", "update") else owner
            self.count += sum(len(value) for value in (own, *args, result) if type(value) in _SIZED)
        return result


def _is_c(function: Any) -> bool:
    is_builtin_type = isinstance(function, type) and function.__module__ == "builtins"
    return is_builtin_type or isinstance(function, BuiltinFunctionType | MethodDescriptorType)


def _sorted_marks(text: str) -> int:
    """What CPython takes to sort the marks of each letter: by insertion."""
    runs = (len(list(run)) for is_mark, run in groupby(text, lambda c: unicodedata.combining(c) > 0) if is_mark)
    return sum(length * length for length in runs)


def _stretch(text: str | bytes, name: str, args: Sequence[Any], result: Any) -> int:
    """How much of a text a method reads, and how much it writes."""
    if name in _ENDS:
        return max((len(p) for p in (args[0] if isinstance(args[0], tuple) else (args[0],))), default=0)
    if name in _PARTLY:
        start, end, _ = slice(*(args[1:3] if len(args) > 2 else (args[1] if len(args) > 1 else 0, None))).indices(
            len(text)
        )
        if name in ("count",) or result < 0:
            return max(end - start, 0)
        return end - result if name.startswith("r") else result - start
    return len(text) + (len(result) if type(result) in _SIZED else 0)


# ---- regular expressions


def pattern_steps(pattern: re.Pattern[Any], name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """The steps of one call of a pattern's method."""
    if name in ("sub", "subn"):
        text, most = args[1], kwargs.get("count", args[2] if len(args) > 2 else 0)
        start, end = 0, len(text)
    elif name == "split":
        text, most = args[0], kwargs.get("maxsplit", args[1] if len(args) > 1 else 0)
        start, end = 0, len(text)
    else:
        text, most = args[0], 1 if name in ("search", "match", "fullmatch") else 0
        start = min(max(args[1] if len(args) > 1 else 0, 0), len(text))
        end = min(args[2] if len(args) > 2 else len(text), len(text))
    if isinstance(text, bytes):
        text, pattern = text.decode("latin-1"), re.compile(pattern.pattern.decode("latin-1"), pattern.flags)
    steps = steps_of(pattern)
    if name in ("match", "fullmatch"):
        return steps.once(text, start, end, getattr(pattern, name)(text, start, end), whole=name == "fullmatch")
    return steps.everywhere(text, start, end, most)


@cache
def steps_of(pattern: re.Pattern[Any]) -> Steps:
    return Steps(pattern)


class Steps:
    """A backtracking matcher that counts its steps."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        self.pattern = pattern
        self.text: Any = ""
        self.end = self.taken = 0
        self.groups: dict[int, tuple[int, int]] = {}
        self.stacks: list[list[tuple[int, int]]] = []
        self.whole = False
        tree = sre_parser.parse(pattern.pattern, pattern.flags & ~sre.SRE_FLAG_DEBUG)
        self.first = self._sequence(list(tree), self._accept, tree.state.flags)

    def once(self, text: Any, at: int, end: int, expected: re.Match[Any] | None, *, whole: bool = False) -> int:
        before = self.taken
        found = self._attempt(text, at, end, whole)
        if found != (expected.end() if expected else NO):
            raise AssertionError(f"{self.pattern.pattern!r} at {at}: {found}, and re says {expected}")
        return self.taken - before

    def everywhere(self, text: Any, start: int, end: int, most: int) -> int:
        before, at = self.taken, start
        for number, match in enumerate(self.pattern.finditer(text, start, end), 1):
            for i in range(at, match.start()):
                self._attempt(text, i, end)
            if match.end() > match.start():  # else `re` may not take an empty match here, after another one
                self.once(text, match.start(), end, match)
            at = max(match.end(), match.start() + (match.start() == match.end()))
            if number == most:
                return self.taken - before
        for i in range(at, end + 1):
            self._attempt(text, i, end)
        return self.taken - before

    def _attempt(self, text: Any, at: int, end: int, whole: bool = False) -> int:
        self.text, self.end, self.whole = text, end, whole
        self.groups = {}
        for stack in self.stacks:
            stack.clear()
        return self.first(at)

    def _accept(self, i: int) -> int:
        return i if not self.whole or i == self.end else NO

    def _sequence(self, items: Iterable[Any], then: Matcher, flags: int) -> Matcher:
        for op, value in reversed(list(items)):
            then = self._item(op, value, then, flags)
        return then

    def _item(self, op: Any, value: Any, then: Matcher, flags: int) -> Matcher:
        if (one := _character(op, value, flags)) is not None:
            return self._one(one, then)
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            least, most, body = value
            most = sys.maxsize if most is sre.MAXREPEAT else most
            single = _character(*body[0], flags) if len(body) == 1 else None
            if single is not None:
                return self._run(op, least, most, single, then)
            if op is sre.POSSESSIVE_REPEAT:
                return self._atomic(self._repeat(sre.MAX_REPEAT, least, most, body, lambda i: i, flags), then)
            return self._repeat(op, least, most, body, then, flags)
        if op is sre.SUBPATTERN:
            group, more, less, body = value
            return self._group(group, body, then, (flags | more) & ~less)
        if op is sre.ATOMIC_GROUP:
            return self._atomic(self._sequence(value, lambda i: i, flags), then)
        if op is sre.BRANCH:
            return self._branch([self._sequence(option, then, flags) for option in value[1]])
        if op is sre.AT:
            return self._at(value, then, flags)
        if op in (sre.ASSERT, sre.ASSERT_NOT):
            return self._look(op is sre.ASSERT, *value, then, flags)
        if op is sre.GROUPREF:
            return self._back(value, then, flags)
        raise NotImplementedError(f"{op} in {self.pattern.pattern!r}")

    def _one(self, fits: Callable[[Any], bool], then: Matcher) -> Matcher:
        def step(i: int) -> int:
            self.taken += 1
            return then(i + 1) if i < self.end and fits(self.text[i]) else NO

        return step

    def _run(self, op: Any, least: int, most: int, fits: Callable[[Any], bool], then: Matcher) -> Matcher:
        def step(i: int) -> int:
            if op is sre.MIN_REPEAT:
                n = 0
                while True:
                    self.taken += 1
                    if n >= least and (found := then(i + n)) != NO:
                        return found
                    if n >= most or i + n >= self.end or not fits(self.text[i + n]):
                        return NO
                    n += 1
            n, text, end = 0, self.text, self.end
            while n < most and i + n < end and fits(text[i + n]):
                n += 1
            self.taken += n + 1
            if op is sre.POSSESSIVE_REPEAT:
                return then(i + n) if n >= least else NO
            for count in range(n, least - 1, -1):
                self.taken += 1
                if (found := then(i + count)) != NO:
                    return found
            return NO

        return step

    def _repeat(self, op: Any, least: int, most: int, body: Any, then: Matcher, flags: int) -> Matcher:
        stack: list[tuple[int, int]] = []  # rounds begun, where the last one did
        self.stacks.append(stack)

        def again(i: int, n: int) -> int:
            if n >= most:
                return NO
            stack.append((n + 1, i))
            found = once(i)
            if found == NO:
                stack.pop()
            return found

        def decide(i: int, n: int) -> int:
            self.taken += 1
            if n < least:
                return again(i, n)
            if op is sre.MAX_REPEAT:
                found = again(i, n)
                return found if found != NO else then(i)
            found = then(i)
            return found if found != NO else again(i, n)

        def after(i: int) -> int:
            n, start = stack.pop()
            found = decide(i, n) if i > start or n < least else then(i)
            if found == NO:
                stack.append((n, start))
            return found

        once = self._sequence(body, after, flags)
        return lambda i: decide(i, 0)

    def _group(self, group: int | None, body: Any, then: Matcher, flags: int) -> Matcher:
        if group is None:
            return self._sequence(body, then, flags)
        starts: list[int] = []
        self.stacks.append(starts)  # type: ignore[arg-type]

        def close(i: int) -> int:
            start, old = starts.pop(), self.groups.get(group)
            self.groups[group] = (start, i)
            found = then(i)
            if found == NO:
                starts.append(start)
                self.groups.pop(group) if old is None else self.groups.__setitem__(group, old)
            return found

        inner = self._sequence(body, close, flags)

        def step(i: int) -> int:
            starts.append(i)
            found = inner(i)
            if found == NO:
                starts.pop()
            return found

        return step

    def _branch(self, options: list[Matcher]) -> Matcher:
        def step(i: int) -> int:
            for option in options:
                self.taken += 1
                if (found := option(i)) != NO:
                    return found
            return NO

        return step

    def _atomic(self, inner: Matcher, then: Matcher) -> Matcher:
        def step(i: int) -> int:
            found = inner(i)
            return then(found) if found != NO else NO

        return step

    def _at(self, where: Any, then: Matcher, flags: int) -> Matcher:
        lines = bool(flags & sre.SRE_FLAG_MULTILINE)

        def is_word(i: int) -> bool:
            return 0 <= i < self.end and _is_word(self.text[i])

        def holds(i: int) -> bool:
            if where is sre.AT_BEGINNING_STRING or (where is sre.AT_BEGINNING and not lines):
                return i == 0
            if where is sre.AT_BEGINNING:
                return i == 0 or self.text[i - 1] == "\n"
            if where is sre.AT_END_STRING:
                return i == self.end
            if where is sre.AT_END:
                return i == self.end or (self.text[i] == "\n" and (lines or i + 1 == self.end))
            return (is_word(i - 1) != is_word(i)) == (where is sre.AT_BOUNDARY)

        def step(i: int) -> int:
            self.taken += 1
            return then(i) if holds(i) else NO

        return step

    def _look(self, wanted: bool, direction: int, body: Any, then: Matcher, flags: int) -> Matcher:
        inner = self._sequence(body, lambda i: i, flags)
        width = body.getwidth()[0] if direction < 0 else 0

        def step(i: int) -> int:
            self.taken += 1
            found = i >= width and inner(i - width) != NO
            return then(i) if found == wanted else NO

        return step

    def _back(self, group: int, then: Matcher, flags: int) -> Matcher:
        def step(i: int) -> int:
            self.taken += 1
            if group not in self.groups:
                return NO
            start, end = self.groups[group]
            self.taken += end - start
            there = self.text[i : min(i + end - start, self.end)]
            same = (
                there.lower() == self.text[start:end].lower()
                if flags & re.IGNORECASE
                else there == self.text[start:end]
            )
            return then(i + end - start) if same else NO

        return step


def _is_word(c: str) -> bool:
    return c.isalnum() or c == "_"


_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    sre.CATEGORY_WORD: _is_word,
    sre.CATEGORY_NOT_WORD: lambda c: not _is_word(c),
}


def _character(op: Any, value: Any, flags: int) -> Callable[[str], bool] | None:
    """Whether a character fits, for what takes exactly one; None for anything else."""
    if op is sre.ANY:
        return (lambda c: True) if flags & re.DOTALL else (lambda c: c != "\n")
    if op in (sre.LITERAL, sre.NOT_LITERAL):
        members, negate = [(sre.LITERAL, value)], op is sre.NOT_LITERAL
    elif op is sre.IN:
        members = [member for member in value if member[0] is not sre.NEGATE]
        negate = len(members) < len(value)
    else:
        return None

    def member_fits(c: str) -> bool:
        for kind, what in members:
            if kind is sre.LITERAL and ord(c) == what:
                return True
            if kind is sre.RANGE and what[0] <= ord(c) <= what[1]:
                return True
            if kind is sre.CATEGORY and _CATEGORIES[what](c):
                return True
        return False

    @cache
    def fits(c: str) -> bool:
        cases = {c, c.lower(), c.upper()} if flags & re.IGNORECASE else {c}
        return any(member_fits(one) for one in cases if len(one) == 1) != negate

    return fits


# ---- modules that count


class _Wrapper(ast.NodeTransformer):
    """Wraps what can cost more than one step in calls of `Operations`."""

    def _operation(self, name: str, *args: ast.expr, keywords: Sequence[ast.keyword] = ()) -> ast.Call:
        function = ast.Attribute(ast.Name("OPERATIONS_", ast.Load()), name, ast.Load())
        return ast.Call(function, list(args), list(keywords))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("super", "locals"):
            return node
        return self._operation("call", node.func, *node.args, keywords=node.keywords)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        return (
            self._operation("sized", node)
            if isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Slice)
            else node
        )

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return self._operation("sized", node) if isinstance(node.op, ast.Add | ast.Mult | ast.Mod) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                part.value = self.visit(part.value)
        return self._operation("sized", node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) > 1 or not isinstance(node.ops[0], ast.In | ast.NotIn):
            return node
        found = self._operation("contains", node.left, node.comparators[0])
        return found if isinstance(node.ops[0], ast.In) else ast.UnaryOp(ast.Not(), found)

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        self.generic_visit(node)
        node.value = self._operation("sized", node.value)
        if isinstance(node.target, ast.Name):  # CPython lengthens a local text in its place
            return node
        loaded = ast.parse(ast.unparse(node.target), mode="eval").body
        return [node, ast.Expr(self._operation("sized", loaded))]

    def _loop(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, ast.Expr(self._operation("tick")))
        return node

    visit_For = visit_While = _loop  # noqa: N815

    def _comprehension(self, node: Any) -> Any:
        self.generic_visit(node)
        for part in node.generators:
            part.iter = self._operation("rounds", part.iter)
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.value = self.visit(node.value) if node.value is not None else None
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.defaults = [self.visit(value) for value in node.defaults]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        returns, node.returns = node.returns, None
        self.generic_visit(node)
        node.returns = returns
        return node


class _Loader(SourceFileLoader):
    operations: Operations

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.get_filename(fullname))
        tree = ast.fix_missing_locations(_Wrapper().visit(ast.parse(source)))
        return compile(tree, self.get_filename(fullname), "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["OPERATIONS_"] = self.operations
        super().exec_module(module)


class _Finder:
    def __init__(self, names: Sequence[str], operations: Operations) -> None:
        self.names, self.operations = names, operations

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not any(name == one or name.startswith(f"{one}.") for one in self.names):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
            spec.loader.operations = self.operations
        return spec


@contextmanager
def counted(*names: str) -> Iterator[Operations]:
    """Modules (and what is inside of those that are packages) that count their work while this is open."""
    operations = Operations()

    def chosen() -> dict[str, ModuleType]:
        return {
            name: module
            for name, module in sys.modules.items()
            if any(name == one or name.startswith(f"{one}.") for one in names)
        }

    plain = chosen()
    for name in plain:
        del sys.modules[name]
    finder: Any = _Finder(names, operations)
    sys.meta_path.insert(0, finder)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200_000)
    try:
        for name in names:
            import_module(name)
        yield operations
    finally:
        sys.setrecursionlimit(limit)
        sys.meta_path.remove(finder)
        for name in chosen():
            del sys.modules[name]
        sys.modules.update(plain)
        for name, module in plain.items():
            parent, _, last = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], last, module)
