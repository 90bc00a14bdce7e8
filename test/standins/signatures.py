"""Read a module's classes, their attributes and the arguments of their methods from its source or stub."""

from __future__ import annotations

import ast

Signatures = dict[str, dict[str, list[str] | None]]  # by class and member: a method's arguments, None for an attribute


def signatures(source: str) -> Signatures:
    """Return the signatures of all public classes, nested ones as ``Outer.Inner``; the last of overloads counts."""
    found: Signatures = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            _read(node, node.name, found)
    return found


def _read(node: ast.ClassDef, name: str, found: Signatures) -> None:
    members: dict[str, list[str] | None] = {}
    found[name] = members
    for part in node.body:
        if isinstance(part, ast.ClassDef):
            _read(part, f"{name}.{part.name}", found)
        elif isinstance(part, ast.FunctionDef):
            decorators = {ast.unparse(d) for d in part.decorator_list}
            if _is_public(part.name) and not any(d.endswith(".setter") for d in decorators):
                skip = 0 if "staticmethod" in decorators else 1
                arguments = [argument.arg for argument in part.args.args[skip:]]
                members[part.name] = None if "property" in decorators else arguments
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and _is_public(part.target.id):
            members[part.target.id] = None
        elif isinstance(part, ast.Assign):
            members.update({t.id: None for t in part.targets if isinstance(t, ast.Name) and _is_public(t.id)})


def _is_public(name: str) -> bool:
    return name == "__init__" or not name.startswith("_")
