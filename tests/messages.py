"""Everything that the program says, in one list: errors, hints, warnings, log lines, help, and what commands print.

    python tests/messages.py > messages.txt

The texts are read from the source, so none is missed for want of a way to raise it. A part that is worked out when the
program runs stands in braces. `tests/test_words.py` looks through the same list.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("medlens", "retrieval", "indexer", "server", "cli")
LOGGED = {"debug", "info", "warning", "error", "exception", "critical"}
PRINTED = {"echo", "say", "print", "secho", "progress", "report"}
RAISED = ("Error", "Incompatible", "Corrupt", "NotFound", "Unreadable")
HELP = {"help", "hint", "short_help", "epilog"}


@dataclass(frozen=True)
class Message:
    kind: str  # error, hint, log, help, printed, docstring of a command
    module: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.kind:8} {self.module}:{self.line}: {self.text}"


def text_of(node: ast.expr) -> str | None:
    """The words of a string or f-string, of strings that are added or joined by a condition; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = []
        for value in node.values:
            if isinstance(value, ast.Constant):
                parts.append(str(value.value))
            elif isinstance(value, ast.FormattedValue):
                parts.append("{" + (text_of(value.value) or ast.unparse(value.value)) + "}")
        return "".join(parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        left, right = text_of(node.left), text_of(node.right)
        return None if left is None and right is None else f"{left or '{}'}{right or ''}"
    if isinstance(node, ast.IfExp):
        either = [text for text in (text_of(node.body), text_of(node.orelse)) if text]
        return " | ".join(either) or None
    return None


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def messages_of(path: Path) -> Iterator[Message]:
    module = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text("utf-8"))
    raised = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {getattr(target, "id", getattr(target, "attr", "")) for target in targets}
            if names & {"default_hint", "help", "hint", "remedy", "detail"} and (text := text_of(node.value)):
                yield Message("hint", module, node.lineno, text)
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        looks_raised = id(node) in raised or name.endswith(
            ("Error", "Incompatible", "Corrupt", "NotFound", "Unreadable")
        )
        if looks_raised and node.args and (text := text_of(node.args[0])):
            yield Message("error", module, node.lineno, text)
        elif name in LOGGED and node.args and (text := text_of(node.args[0])):
            yield Message("log", module, node.lineno, text)
        elif name == "Rejection" and len(node.args) > 2 and (text := text_of(node.args[2])):
            yield Message("error", module, node.lineno, text)
        elif name in PRINTED and node.args and (text := text_of(node.args[0])):
            yield Message("printed", module, node.lineno, text)
        for keyword in node.keywords:
            if keyword.arg in HELP and (text := text_of(keyword.value)):
                yield Message("hint" if keyword.arg == "hint" else "help", module, keyword.value.lineno, text)


def command_docstrings() -> Iterator[Message]:
    """A command's docstring is its help."""
    for path in sorted((ROOT / "cli" / "medlens_commands").glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if (
                isinstance(node, ast.FunctionDef)
                and not node.name.startswith("_")
                and (text := ast.get_docstring(node))
            ):
                yield Message("help", path.relative_to(ROOT).as_posix(), node.lineno, " ".join(text.split()))


def all_messages() -> list[Message]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [*(message for path in paths for message in messages_of(path)), *command_docstrings()]


if __name__ == "__main__":
    for message in all_messages():
        print(message)
