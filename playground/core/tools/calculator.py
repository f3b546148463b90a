"""Arithmetic on a text, by walking its syntax tree. Nothing is ever passed to eval.

Numbers are exact fractions (0.1 + 0.2 is 0.3) until a root, pi or e makes them floats. Every bound is checked
before the work it bounds: length and bracket depth before parsing, size before a power is taken.
`×`, `÷`, `−` and `^` are read as `*`, `/`, `-` and `**`: people write them, and a calculator has no other use for
them. Digits of other scripts are read as digits. `%` is the remainder.
"""

import ast
import math
import operator
import time
import unicodedata
from fractions import Fraction

from playground.core.tools.tool import Tool, ToolError

NAME = "calculator"
MAX_LENGTH = 200  # characters
MAX_DEPTH = 30  # brackets, and operations inside each other
MAX_DIGITS = 100  # of any number on the way
MAX_SECONDS = 0.5

_SIGNS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-"})
_BITS = int(MAX_DIGITS * math.log2(10))
_CONSTANTS = {"pi": math.pi, "e": math.e}
_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def make() -> Tool:
    parameters = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
    return Tool(NAME, "Evaluate arithmetic", parameters, run)


def run(expression: str) -> dict:
    return {"result": evaluate(expression)}


def evaluate(expression: str, clock=time.monotonic) -> int | float:
    """The value of an arithmetic expression: an int where it is whole, else a float of 12 digits.

    Raises ToolError with one sentence.
    """
    text = _plain(expression)
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ToolError(f"{_shown(expression)} is not an arithmetic expression, write for example 23 * 47.") from None
    deadline = clock() + MAX_SECONDS
    try:
        return _number(_value(tree.body, 0, deadline, clock))
    except ZeroDivisionError:
        raise ToolError("Division by zero has no result.") from None
    except OverflowError:
        raise ToolError(f"The result has more than {MAX_DIGITS} digits.") from None


def same(one: str, other: str) -> bool:
    """Whether two texts are one expression to the calculator: blanks, outer brackets and `^` for `**` do not count.

    The order of the numbers does: 2 * 3 and 3 * 2 are two expressions. Nothing is calculated.
    """
    if one == other:
        return True
    try:
        trees = [ast.dump(ast.parse(_plain(text), mode="eval")) for text in (one, other)]
    except (ToolError, SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return trees[0] == trees[1]


def _plain(expression: str) -> str:
    if len(expression) > MAX_LENGTH:
        raise ToolError(f"The expression has {len(expression):,} characters, at most {MAX_LENGTH} are allowed.")
    if not expression.strip():
        raise ToolError("The expression is empty, write for example 23 * 47.")
    depth = 0
    for character in expression:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_DEPTH:
            raise ToolError(f"The expression has more than {MAX_DEPTH} brackets inside each other.")
    text = expression.strip().translate(_SIGNS).replace("^", "**")
    return "".join(
        str(unicodedata.decimal(c)) if not c.isascii() and unicodedata.decimal(c, None) is not None else c for c in text
    )


def _value(node: ast.expr, depth: int, deadline: float, clock) -> Fraction | float:
    if depth > MAX_DEPTH:
        raise ToolError(f"The expression has more than {MAX_DEPTH} operations inside each other.")
    if clock() > deadline:
        raise ToolError(f"The calculation took longer than {MAX_SECONDS} seconds.")

    def value(child):
        return _value(child, depth + 1, deadline, clock)

    match node:
        case ast.Constant(value=bool()):
            raise ToolError(f"{node.value} is not a number.")
        case ast.Constant(value=int() | float() as number):
            if isinstance(number, float) and not math.isfinite(number):
                raise ToolError(f"A number has more than {MAX_DIGITS} digits.")
            return _bounded(Fraction(repr(number)))
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.UAdd()):
            return value(node.operand)
        case ast.UnaryOp(op=ast.USub()):
            return -value(node.operand)
        case ast.BinOp(op=ast.Pow()):
            return _bounded(_power(value(node.left), value(node.right)))
        case ast.BinOp() if type(node.op) in _OPERATIONS:
            left, right = value(node.left), value(node.right)
            return _bounded(_OPERATIONS[type(node.op)](left, right))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_call(name, [value(argument) for argument in arguments]))
    raise ToolError(_refusal(node))


def _power(base: Fraction | float, exponent: Fraction | float) -> Fraction | float:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits > 1 and (bits - 1) * abs(exponent) > _BITS:
            raise OverflowError
        if bits <= 1:  # 0, 1 and -1: only the sign of the power is left to find
            exponent = min(abs(exponent), 2 + exponent % 2) * (1 if exponent >= 0 else -1)
        return base ** int(exponent)
    result = float(base) ** float(exponent)
    if isinstance(result, complex):
        raise ToolError("A root of a negative number is not a real number.")
    return result


def _call(name: str, values: list) -> Fraction | float:
    function, least, most = _FUNCTIONS[name]
    if not least <= len(values) <= most:
        wanted = str(least) if least == most else f"{least} or more" if most > 2 else f"{least} or {most}"
        raise ToolError(
            f"{name} takes {wanted} numbers, got {len(values)}.".replace("takes 1 numbers", "takes 1 number")
        )
    return function(*values)


def _sqrt(value: Fraction | float) -> Fraction | float:
    if value < 0:
        raise ToolError("A root of a negative number is not a real number.")
    if isinstance(value, Fraction):
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return math.sqrt(value)


def _round(value: Fraction | float, digits: Fraction | float = Fraction(0)) -> Fraction:
    """Half away from zero, as on a pocket calculator (Python's own rounds 2.5 to 2)."""
    if digits != int(digits) or not 0 <= digits <= 12:
        raise ToolError(f"round takes a whole number of digits between 0 and 12, got {_number(digits)}.")
    scale = 10 ** int(digits)
    whole = math.floor(abs(Fraction(value)) * scale + Fraction(1, 2))
    return Fraction(whole if value >= 0 else -whole, scale)


_FUNCTIONS = {
    "sqrt": (_sqrt, 1, 1),
    "abs": (abs, 1, 1),
    "round": (_round, 1, 2),
    "min": (min, 2, MAX_LENGTH),
    "max": (max, 2, MAX_LENGTH),
}


def _bounded(value: Fraction | float) -> Fraction | float:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise OverflowError
        return value
    value = Fraction(value)
    if abs(value) >= 10**MAX_DIGITS:
        raise OverflowError
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 4 * _BITS:
        return float(value)
    return value


def _number(value: Fraction | float) -> int | float:
    if isinstance(value, Fraction) and value.denominator == 1:
        return int(value)
    rounded = float(f"{float(value):.12g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _refusal(node: ast.expr) -> str:
    what = _shown(ast.unparse(node))
    match node:
        case ast.Tuple():
            return f"{what} is a list; write one expression, and numbers without thousands commas."
        case ast.Name(id="nan" | "inf" | "NaN" | "Infinity"):
            return f"{what} is not a number the calculator works with."
        case ast.Call(func=ast.Name(id=name)):
            return f"There is no function {name!r}; there are {', '.join(_FUNCTIONS)}."
        case ast.Name(id=name):
            return f"{name!r} is not a number, and there are no variables."
    return f"{what} is not arithmetic; numbers, + - * / // % **, brackets and {', '.join(_FUNCTIONS)} are."


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
