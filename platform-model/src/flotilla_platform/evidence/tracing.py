"""Which values an expression of a package can have, as far as its text tells.

Subjects are named in few ways: `IncrementCounter.subject`, `health_subject(SERVICE)`, a loop over
`COMMANDS`, a message that is passed on from function to function. All of them are followed: names to
where they are bound, arguments to every call of a function with that name, calls of functions of the
package to what they return. Contracts alone are imported, since they are data; no service is.

The order of statements is not looked at, so what is found may be too much, never too little: what
cannot be told is `UNKNOWN`, and passed on as such.
"""

import ast
import builtins
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

from flotilla_platform.evidence.source import Module, Scope, origin_of

UNKNOWN = "*"
"""A value that the text does not tell; within a subject, any one token."""

CONTRACTS = "flotilla_contracts"
VALUES_MAX = 500
"""How many combinations of arguments are tried."""

_PLACE = "anything0"
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class _Each:
    """A name that is bound to every element of something; `place` is its place in a pair."""

    of: ast.expr
    place: int | None = None


@dataclass(eq=False)
class Tracer:
    """Follows the values of one package."""

    modules: Mapping[str, Module]
    _busy: set[tuple[ast.AST, str]] = field(default_factory=set)
    _calls: dict[str, list[tuple[Module, ast.Call]]] = field(default_factory=dict)
    _bound: dict[Scope, dict[str, list[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Call):
                    for name in _called(node):
                        self._calls.setdefault(name, []).append((module, node))

    def calls(self, name: str) -> list[tuple[Module, ast.Call]]:
        """Return the calls of whatever has this name."""
        return [(m, call) for m, call in self._calls.get(name, []) if name_of(call.func) == name]

    def values(self, module: Module, node: ast.expr) -> set[Any]:
        """Return what an expression can be."""
        return self._guarded(module, node, "values")

    def elements(self, module: Module, node: ast.expr, place: int | None = None) -> set[Any]:
        """Return what the elements of an expression can be; those at `place`, when they are pairs."""
        return self._guarded(module, node, f"elements {place}", place)

    def _guarded(
        self, module: Module, node: ast.expr, what: str, place: int | None = None
    ) -> set[Any]:
        if (node, what) in self._busy:  # it depends on itself
            return set()
        self._busy.add((node, what))
        try:
            found = (
                self._values(module, node)
                if what == "values"
                else self._elements(module, node, place)
            )
            return set(found)
        finally:
            self._busy.discard((node, what))

    def _values(self, module: Module, node: ast.expr) -> Iterator[Any]:
        match node:
            case ast.Constant(value=str() as text):
                yield text
            case ast.Name(id=name):
                yield from self._named(module, node, name)
            case ast.Attribute(value=inner, attr=attr):
                for value in self.values(module, inner):
                    known = value != UNKNOWN and hasattr(value, attr)
                    yield getattr(value, attr) if known else UNKNOWN
            case ast.IfExp(body=one, orelse=other):
                yield from self.values(module, one) | self.values(module, other)
            case ast.Await(value=inner) | ast.NamedExpr(value=inner):
                yield from self.values(module, inner)
            case ast.JoinedStr(values=parts):
                yield self._joined(module, parts)
            case ast.Call():
                yield from self._returned(module, node)
            case _:
                yield UNKNOWN

    def _joined(self, module: Module, parts: list[ast.expr]) -> str:
        said = []
        for part in parts:
            of = part.value if isinstance(part, ast.FormattedValue) else part
            values = self.values(module, of)
            [only] = values if len(values) == 1 else [UNKNOWN]
            said.append(only if isinstance(only, str) else UNKNOWN)
        return "".join(said)

    def _elements(self, module: Module, node: ast.expr, place: int | None) -> Iterator[Any]:
        match node:
            case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
                for item in items:
                    yield from self._item(module, item, place)
            case ast.Dict(keys=keys, values=values):
                for one in values if place == 1 else filter(None, keys):
                    yield from self.values(module, one)
            case ast.Call(func=ast.Attribute(value=inner, attr="items" | "values" as way)):
                yield from self.elements(module, inner, 1 if way == "values" else place)
            case ast.Name(id=name):
                for home, bound in self._bindings(module, node, name):
                    if isinstance(bound, ast.expr):
                        yield from self.elements(home, bound, place)
                    else:
                        for value in self._value_of(home, name, bound):
                            yield from value if isinstance(value, tuple) else [UNKNOWN]
            case _:
                yield UNKNOWN

    def _item(self, module: Module, item: ast.expr, place: int | None) -> set[Any]:
        if isinstance(item, ast.Starred):
            return self.elements(module, item.value, place)
        if place is not None and isinstance(item, ast.Tuple):
            return self.values(module, item.elts[place])
        return self.values(module, item)

    def _named(self, module: Module, node: ast.expr, name: str) -> Iterator[Any]:
        bindings = list(self._bindings(module, node, name))
        for home, bound in bindings:
            yield from self._value_of(home, name, bound)
        if not bindings and not hasattr(builtins, name):
            yield UNKNOWN

    def _value_of(self, module: Module, name: str, bound: Any) -> Iterator[Any]:
        match bound:
            case ast.expr():
                yield from self.values(module, bound)
            case _Each(of=of, place=place):
                yield from self.elements(module, of, place)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from self._argument(module, bound, name)
            case ast.ImportFrom():
                origin = origin_of(module.name, bound)
                if origin.split(".")[0] == CONTRACTS:
                    source = next(a.name for a in bound.names if name in (a.asname, a.name))
                    yield getattr(importlib.import_module(origin), source, UNKNOWN)
                else:
                    yield UNKNOWN
            case _:
                yield UNKNOWN

    def _bindings(self, module: Module, node: ast.AST, name: str) -> Iterator[tuple[Module, Any]]:
        """Yield what binds a name, in the nearest scope that does."""
        scope: ast.AST = module.scope_of(node)
        while True:
            if found := self._of_scope(module, scope).get(name):
                for bound in found:
                    yield from self._home(module, name, bound)
                return
            if isinstance(scope, ast.Module):
                return
            scope = module.scope_of(scope)

    def _home(self, module: Module, name: str, bound: Any) -> Iterator[tuple[Module, Any]]:
        """Follow an import within the package to where the name is bound."""
        if isinstance(bound, ast.ImportFrom):
            source = next(a.name for a in bound.names if name in (a.asname, a.name))
            origin = self.modules.get(origin_of(module.name, bound))
            if origin is not None:
                for there in self._of_scope(origin, origin.tree).get(source, ()):
                    yield origin, there
                return
        yield module, bound

    def _of_scope(self, module: Module, scope: Any) -> dict[str, list[Any]]:
        if scope not in self._bound:
            found: dict[str, list[Any]] = {}
            for name, bound in _bound_in(module, scope):
                found.setdefault(name, []).append(bound)
            self._bound[scope] = found
        return self._bound[scope]

    def _argument(self, module: Module, function: _Function, name: str) -> Iterator[Any]:
        """Yield what a function is given for one of its parameters, by all of its callers."""
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        if name not in {*names, *(a.arg for a in function.args.kwonlyargs)}:
            yield UNKNOWN  # the function itself
            return
        is_method = isinstance(module.parents.get(function), ast.ClassDef) and names[:1] == ["self"]
        place = names.index(name) - is_method if name in names else None
        found = False
        for home, call in self._calls.get(function.name, ()):
            own = name_of(call.func) == function.name
            arguments = call.args if own else call.args[1:]
            given = next((k.value for k in call.keywords if k.arg == name), None)
            if given is None and place is not None and place < len(arguments):
                given = arguments[place]
            if given is not None:
                found = True
                yield from self.values(home, given)
        if not found:
            yield UNKNOWN

    def _returned(self, module: Module, call: ast.Call) -> Iterator[Any]:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "model_validate":
            yield from self.values(module, call.func.value)
            return
        functions = self._functions(module, call)
        for home, function in functions:
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value and home.scope_of(node) is function:
                    yield from self.values(home, node.value)
        if functions:
            return
        for callee in self.values(module, call.func):
            if isinstance(callee, type):
                yield callee  # an instance has the class's subject
            elif callable(callee):
                given = [sorted(self.values(module, one), key=str) for one in call.args]
                yield from (_applied(callee, some) for some in islice(product(*given), VALUES_MAX))
            else:
                yield UNKNOWN

    def _functions(self, module: Module, call: ast.Call) -> list[tuple[Module, _Function]]:
        if not isinstance(call.func, ast.Name):
            return []
        found = self._bindings(module, call, call.func.id)
        return [
            (home, bound)
            for home, bound in found
            if isinstance(bound, _Function) and bound.name == call.func.id
        ]


def name_of(node: ast.expr) -> str:
    """Return the last name of `a`, `b.a`: what is called."""
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _called(call: ast.Call) -> Iterator[str]:
    yield name_of(call.func)
    if name_of(call.func) == "partial" and call.args:
        yield name_of(call.args[0])


def _applied(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Call a function of the contracts; what is unknown is some token, or some event's type."""
    for place in (_PLACE, f"{_PLACE}.{_PLACE}.v1"):
        given = [place if one == UNKNOWN else one for one in arguments]
        try:
            found = function(*given)
        except (LookupError, TypeError, ValueError):
            continue
        return found.replace(_PLACE, UNKNOWN) if isinstance(found, str) else found
    return UNKNOWN


def _bound_in(module: Module, scope: Scope) -> Iterator[tuple[str, Any]]:
    if isinstance(scope, _Function):
        a = scope.args
        yield from ((one.arg, scope) for one in (*a.posonlyargs, *a.args, *a.kwonlyargs))
    for node in ast.walk(scope):
        if node is scope or module.scope_of(node) is not scope:
            continue
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.For(target=target, iter=of) | ast.AsyncFor(target=target, iter=of):
                yield from _each(target, of)
            case ast.comprehension(target=target, iter=of):
                yield from _each(target, of)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node
            case ast.ImportFrom(names=names):
                yield from ((alias.asname or alias.name, node) for alias in names)
            case _:
                pass


def _each(target: ast.expr, of: ast.expr) -> Iterator[tuple[str, _Each]]:
    if isinstance(target, ast.Name):
        yield target.id, _Each(of)
    elif isinstance(target, ast.Tuple):
        for place, one in enumerate(target.elts):
            if isinstance(one, ast.Name):
                yield one.id, _Each(of, place)
