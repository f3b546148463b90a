"""The variables that a chat template takes, found in its text.

Only Jinja's parser is used, never its compiler: that one computes constants, and `{{ 9**9**9 }}` is a constant.
"""

import json
from dataclasses import dataclass, field

from jinja2 import TemplateSyntaxError, nodes

from playground.core import sandbox

MAX_CHARACTERS = 200_000  # of a template that is looked at here

# what apply_chat_template gives: transformers' utils/chat_template_utils.py and the named special tokens
GIVEN = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("raise_exception", "strftime_now", "additional_special_tokens", "loop", "caller", "varargs", "kwargs"),
    )
)


@dataclass(frozen=True)
class Variable:
    """A name that a template reads and that a caller of apply_chat_template may set.

    kind: "switch" (true or false), "choice" (one of `choices`) or "text". `default_text` is what the template takes
    where the name is not set, as Jinja writes it; empty where it does not say.
    """

    name: str
    kind: str
    choices: tuple[str, ...] = ()
    default_text: str = ""
    numeric: bool = False  # a text that is read as a number


def variables(text: str) -> list[Variable]:
    """The template's free variables in the order in which they are first read; [] where it cannot be parsed."""
    if len(text) > MAX_CHARACTERS:
        return []
    try:
        tree = sandbox.environment().parse(text)
        free = _Free(tree).names
        uses = _Uses(free)
        uses.visit(tree)
    except (TemplateSyntaxError, RecursionError):
        return []
    return [uses.of[name].variable(name) for name in free]


def value_of(variable: Variable, given: str):
    """The value that the template gets for what was chosen or typed."""
    if variable.kind == "switch":
        return given == "on"
    if variable.kind == "choice" or not (variable.numeric or given.lstrip()[:1] in ("[", "{")):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):  # half typed, or text after all
        return given


class _Free:
    """Names read where nothing before them in the text can have set them.

    jinja2's `meta.find_undeclared_variables` also lists a name that is set in one branch and read after it, which
    no caller is meant to set.
    """

    def __init__(self, tree: nodes.Template):
        self.names: dict[str, None] = {}
        self._set_somewhere = _stored(tree) | {macro.name for macro in tree.find_all(nodes.Macro)}
        self._visit(tree, set(sandbox.environment().globals) | GIVEN)

    def _visit(self, node: nodes.Node, known: set[str]) -> None:
        method = getattr(self, f"_visit_{type(node).__name__.lower()}", None)
        if method is not None:
            return method(node, known)
        return self._all(node.iter_child_nodes(), known)

    def _all(self, many, known: set[str]) -> None:
        for node in many or ():
            self._visit(node, known)

    def _visit_name(self, node, known):
        if node.ctx == "load":
            self._read(node.name, known)
        else:
            known.add(node.name)

    def _visit_nsref(self, node, known):
        self._read(node.name, known)

    def _read(self, name: str, known: set[str]) -> None:
        if name not in known and not name.endswith("_token"):
            self.names.setdefault(name)

    def _visit_assign(self, node, known):
        self._visit(node.node, known)
        self._visit(node.target, known)

    def _visit_assignblock(self, node, known):
        self._all(node.body, set(known))
        self._all([node.filter] if node.filter else [], known)
        self._visit(node.target, known)

    def _visit_if(self, node, known):
        self._visit(node.test, known)
        branches = []
        for branch in (node.body, node.elif_, node.else_):
            branches.append(set(known))
            self._all(branch, branches[-1])
        known.update(*branches)

    def _visit_for(self, node, known):
        self._visit(node.iter, known)
        inner = set(known)
        self._all([node.target, *([node.test] if node.test else []), *node.body], inner)
        self._all(node.else_, set(known))

    def _visit_macro(self, node, known):
        known.add(node.name)
        self._all(node.defaults, known)
        self._all([*node.args, *node.body], known | self._set_somewhere)  # it runs later

    def _visit_callblock(self, node, known):
        self._visit(node.call, known)
        self._all([*node.defaults, *node.args, *node.body], set(known))

    def _visit_with(self, node, known):
        self._all(node.values, known)
        self._all([*node.targets, *node.body], set(known))

    def _visit_filterblock(self, node, known):
        self._visit(node.filter, known)
        self._all(node.body, set(known))

    def _visit_block(self, node, known):
        self._all(node.body, set(known))


@dataclass
class _Evidence:
    """What the uses of a name say about its values."""

    choices: dict[str, None] = field(default_factory=dict)
    true_or_false: bool = False  # compared with true or false
    condition: bool = False
    value: bool = False  # written, joined, walked through or handed on
    numeric: bool = False
    fallback: object = None

    def variable(self, name: str) -> Variable:
        choices = [choice for choice in self.choices if choice]
        kind = "text"
        if choices:
            choices += [self.fallback] if isinstance(self.fallback, str) else []
            kind = "choice"
        elif self.true_or_false or isinstance(self.fallback, bool) or (self.condition and not self.value):
            kind = "switch" if not self.numeric else "text"
        default = str(self.fallback).lower() if isinstance(self.fallback, bool) else str(self.fallback or "")
        numeric = kind == "text" and (self.numeric or type(self.fallback) in (int, float))
        return Variable(name, kind, tuple(dict.fromkeys(filter(None, choices))), default, numeric)


_SAME = ("lower", "upper", "trim", "string", "default", "d", "capitalize", "strip")  # they keep what is compared
_NOTHING = ("defined", "undefined", "none", "string")
_CONDITION, _VALUE, _NEITHER = "condition", "value", "neither"


class _Uses:
    """Walks the tree and gathers evidence on the free names; a name set from one of them alone stands for it."""

    def __init__(self, free):
        self.of = {name: _Evidence() for name in free}
        self._alias: dict[str, str] = {}
        self._tested: list[set[str]] = []  # the names that the ifs around this place ask about

    def visit(self, node: nodes.Node, role: str = _VALUE) -> None:
        method = getattr(self, f"_visit_{type(node).__name__.lower()}", None)
        if method is not None:
            return method(node, role)
        for child in node.iter_child_nodes():
            self.visit(child)
        return None

    def _evidence(self, node) -> _Evidence | None:
        name = _plain_name(node)
        return self.of.get(self._alias.get(name, name)) if name else None

    def _visit_name(self, node, role):
        found = self._evidence(node)
        if found is None or node.ctx != "load":
            return
        found.condition |= role == _CONDITION
        found.value |= role == _VALUE

    def _visit_if(self, node, role):
        self.visit(node.test, _CONDITION)
        self._tested.append(_loaded(node.test))
        for child in (*node.body, *node.elif_, *node.else_):
            self.visit(child)
        self._tested.pop()

    def _visit_condexpr(self, node, role):
        self.visit(node.test, _CONDITION)
        branches = [node.expr1] + ([node.expr2] if node.expr2 is not None else [])
        for branch, other in (branches, branches[::-1]) if len(branches) == 2 else ():
            found = self._evidence(branch)
            if found is not None and _plain_name(branch) in _loaded(node.test):
                self._fall_back(found, other)
        for branch in branches:
            self.visit(branch, role)

    def _visit_and(self, node, role):
        self.visit(node.left, _CONDITION)
        self.visit(node.right, role)

    def _visit_or(self, node, role):
        found = self._evidence(node.left)
        if found is not None and role != _CONDITION:
            self._fall_back(found, node.right)
        self.visit(node.left, role)
        self.visit(node.right, role)

    def _visit_not(self, node, role):
        self.visit(node.node, _CONDITION)

    def _visit_compare(self, node, role):
        op, operand = node.ops[0].op, node.ops[0].expr
        sides = [(node.expr, operand)] + ([(operand, node.expr)] if op not in ("in", "notin") else [])
        for side, other in sides if len(node.ops) == 1 else ():
            found = self._evidence(side)
            if found is not None and self._compared(found, op, other):
                self.visit(side, _NEITHER)
                return
        self.visit(node.expr)
        for operand in node.ops:
            self.visit(operand.expr)

    def _compared(self, found: _Evidence, op: str, other) -> bool:
        """Note what a comparison says; False where it says nothing."""
        constants = _constants(other)
        if not constants or (op in ("in", "notin")) != isinstance(other, nodes.List | nodes.Tuple):
            return False
        for value in constants:
            found.true_or_false |= isinstance(value, bool)
            found.numeric |= type(value) in (int, float)
            if isinstance(value, str):
                found.choices.setdefault(value)
        return True

    def _visit_test(self, node, role):
        found = self._evidence(node.node)
        if found is None:
            self.visit(node.node)
        elif node.name in ("true", "false", "boolean"):
            found.true_or_false = True
        elif node.name in ("number", "integer", "float"):
            found.numeric = True
        elif node.name in ("sameas", "eq", "equalto", "==", "ne", "!=", "in") and node.args:
            self._compared(found, "in" if node.name == "in" else "eq", node.args[0])
        elif node.name not in _NOTHING:
            found.value = True
        for argument in node.args or ():
            self.visit(argument)

    def _visit_filter(self, node, role):
        found = self._evidence(node.node) if node.node is not None else None
        if found is not None and node.name in ("default", "d"):
            if node.args:
                self._fall_back(found, node.args[0])
            self.visit(node.node, role)
        elif node.node is not None:
            if found is not None and node.name in ("int", "float", "abs", "round"):
                found.numeric = True
            self.visit(node.node)
        for argument in node.args or ():
            self.visit(argument)

    def _visit_assign(self, node, role):
        target = node.target.name if isinstance(node.target, nodes.Name) else ""
        if isinstance(node.node, nodes.Const):
            if target in self.of and any(target in names for names in self._tested):
                self._fall_back(self.of[target], node.node)
            return
        source = _plain_name(node.node) or _with_fallback(node.node)
        if source in self.of and target in self.of:
            self.of[source] = self.of[target]  # two names of one variable, or the name itself
        elif target and source in self.of:
            self._alias[target] = source
        itself = source in self.of and bool(target)
        self.visit(node.node, _NEITHER if itself else _VALUE)

    def _fall_back(self, found: _Evidence, node) -> None:
        if isinstance(node, nodes.Const) and found.fallback is None:
            found.fallback = node.value


def _plain_name(node) -> str | None:
    """The name that an expression like `x`, `x | lower`, `x | default(…)` or `x.lower()` is about."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Filter) and node.name in _SAME:
        return _plain_name(node.node)
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.node.attr in _SAME:
        return _plain_name(node.node.node)
    return None


def _with_fallback(node) -> str | None:
    """x of `x if x is defined else …` and of `x or …`."""
    if isinstance(node, nodes.CondExpr):
        found = (_plain_name(branch) for branch in (node.expr1, node.expr2))
        return next((name for name in found if name in _loaded(node.test)), None)
    return _plain_name(node.left) if isinstance(node, nodes.Or) else None


def _constants(node) -> list:
    items = node.items if isinstance(node, nodes.List | nodes.Tuple) else [node]
    return [item.value for item in items] if all(isinstance(item, nodes.Const) for item in items) else []


def _loaded(node) -> set[str]:
    names = {name.name for name in node.find_all(nodes.Name)}
    return names | ({node.name} if isinstance(node, nodes.Name) else set())


def _stored(tree) -> set[str]:
    return {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
