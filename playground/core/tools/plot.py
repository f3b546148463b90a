"""Plots: a line of an expression, or bars of given values, as a small SVG for the reader and a sentence for the model.

The expression is walked as a syntax tree and only floats are computed with; nothing is passed to eval.
"""

import ast
import html
import math
import re
import statistics
from collections.abc import Callable

from playground.core.tools import schema
from playground.core.tools.tool import PICTURE, Tool, ToolError
from playground.core.tools.units import finite

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 26, 34
POINTS = 401  # odd, so that the middle is among them
MAX_LENGTH = 200  # characters of an expression
MAX_DEPTH = 60  # operations inside each other
MAX_VALUES = 40
LONGEST_LABEL = 24
_COLOUR = "#2563eb"
_CONSTANTS = {"pi": math.pi, "e": math.e}
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    name: getattr(math, name)
    for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "sqrt", "floor", "ceil")
} | {"log": math.log, "ln": math.log, "log10": math.log10, "log2": math.log2, "abs": abs}
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "π": "(pi)", "²": "^2", "³": "^3"})
Function = Callable[[float], float]


def make_line() -> Tool:
    return schema.tool(plot)


def make_bars() -> Tool:
    return schema.tool(plot_points)


def plot(expression: str, start: float, end: float) -> dict:
    """Draw a function of x from start to end"""
    start, end = finite(start, "start"), finite(end, "end")
    if not 1e-9 <= end - start <= 1e12:
        raise ToolError(f"end must be more than start, by 1e-9 to 1e12; got {start:g} and {end:g}.")
    text, function = _compiled(expression)
    xs = [start + (end - start) * i / (POINTS - 1) for i in range(POINTS)]
    ys = [_at(function, x) for x in xs]
    known = [(y, x) for x, y in zip(xs, ys, strict=True) if y is not None]
    if len(known) < 2:
        raise ToolError(f"{text!r} has no value between {start:g} and {end:g}.")
    (low, low_x), (high, high_x) = min(known), max(known)
    drawn = f"{text} from {start:g} to {end:g}"
    return {
        "drawn": drawn,
        "lowest": f"{low:.4g} at x = {low_x:.4g}",
        "highest": f"{high:.4g} at x = {high_x:.4g}",
        PICTURE: {"svg": _line(drawn, xs, ys), "alt": f"Line chart of {drawn}"},
    }


def plot_points(values: list[float], labels: list[str]) -> dict:
    """Draw a bar chart of values; labels name the bars"""
    if not 1 <= len(values) <= MAX_VALUES:
        raise ToolError(f"A chart takes 1 to {MAX_VALUES} values, got {len(values)}.")
    values = [finite(value, "each value") for value in values]
    if max(map(abs, values)) > 1e15:
        raise ToolError("Each value must be at most 1e15.")
    if labels and len(labels) != len(values):
        raise ToolError(f"There are {len(values)} values and {len(labels)} labels; each value needs one label.")
    names = [str(label)[:LONGEST_LABEL] for label in labels] or [str(n) for n in range(1, len(values) + 1)]
    low, high = min(range(len(values)), key=values.__getitem__), max(range(len(values)), key=values.__getitem__)
    return {
        "drawn": f"{len(values)} bars",
        "lowest": f"{values[low]:g} ({names[low]})",
        "highest": f"{values[high]:g} ({names[high]})",
        "mean": float(f"{statistics.fmean(values):.6g}"),
        PICTURE: {"svg": _bars(names, values), "alt": f"Bar chart of {len(values)} values"},
    }


# --- the expression ---


def _compiled(expression: str) -> tuple[str, Function]:
    text = " ".join(str(expression).split())
    if not 0 < len(text) <= MAX_LENGTH:
        raise ToolError(f"The expression must have 1 to {MAX_LENGTH} characters, got {len(text):,}.")
    text = re.sub(r"^(?:y|f\s*\(\s*x\s*\))\s*=\s*", "", text)
    source = text.translate(_SIGNS).replace("^", "**")
    source = re.sub(r"(?<![\w.])(\d+\.?\d*)\s*(?=x\b|\()", r"\1*", source)  # 2x, 3(x+1)
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ToolError(f"{text[:60]!r} is not an expression, write for example x**2 + 1.") from None
    return text, _function(tree, 0)


def _function(node: ast.expr, depth: int) -> Function:
    if depth > MAX_DEPTH:
        raise ToolError(f"The expression has more than {MAX_DEPTH} operations inside each other.")

    def inner(child: ast.expr) -> Function:
        return _function(child, depth + 1)

    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            try:
                value = float(number)
            except OverflowError:
                raise ToolError("A number of the expression is too large.") from None
            return lambda x: value
        case ast.Name(id="x"):
            return lambda x: x
        case ast.Name(id=name) if name in _CONSTANTS:
            return lambda x: _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            of = inner(operand)
            return lambda x: -of(x)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return inner(operand)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            a, b = inner(left), inner(right)
            return lambda x: a(x) + b(x)
        case ast.BinOp(op=ast.Sub(), left=left, right=right):
            a, b = inner(left), inner(right)
            return lambda x: a(x) - b(x)
        case ast.BinOp(op=ast.Mult(), left=left, right=right):
            a, b = inner(left), inner(right)
            return lambda x: a(x) * b(x)
        case ast.BinOp(op=ast.Div(), left=left, right=right):
            a, b = inner(left), inner(right)
            return lambda x: a(x) / b(x)
        case ast.BinOp(op=ast.Mod(), left=left, right=right):
            a, b = inner(left), inner(right)
            return lambda x: a(x) % b(x)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            a, b = inner(left), inner(right)
            return lambda x: math.pow(a(x), b(x))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            call, of = _FUNCTIONS[name], inner(argument)
            return lambda x: call(of(x))
    raise ToolError(
        f"{ast.unparse(node)[:60]!r} cannot be drawn; x, numbers, + - * / **, pi, e and {', '.join(_FUNCTIONS)} can."
    )


def _at(function: Function, x: float) -> float | None:
    try:
        value = function(x)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e100 else None


# --- the picture ---


def _line(title: str, xs: list[float], ys: list[float | None]) -> str:
    low, high = _range([y for y in ys if y is not None])
    across, up = _scale(xs[0], xs[-1], LEFT, WIDTH - RIGHT), _scale(low, high, HEIGHT - BOTTOM, TOP)
    pieces: list[list[str]] = [[]]
    before = None
    for x, y in zip(xs, ys, strict=True):
        outside = y is None or not low <= y <= high
        jump = before is not None and y is not None and abs(y - before) > 0.8 * (high - low)
        if (outside or jump) and pieces[-1]:
            pieces.append([])
        if not outside:
            pieces[-1].append(f"{across(x):.1f},{up(y):.1f}")
        before = y
    lines = "".join(
        f'<polyline points="{" ".join(piece)}" fill="none" stroke="{_COLOUR}" stroke-width="2"/>'
        for piece in pieces
        if len(piece) > 1
    )
    ticks = [_x_tick(across(x), f"{x:.6g}") for x in _ticks(xs[0], xs[-1], 7)]
    return _svg(title, _y_grid(low, high, up) + "".join(ticks) + lines)


def _bars(names: list[str], values: list[float]) -> str:
    low, high = min(0.0, *values), max(0.0, *values)
    if low == high:
        high = 1.0
    up = _scale(low, high + 0.05 * (high - low), HEIGHT - BOTTOM, TOP)
    slot = (WIDTH - LEFT - RIGHT) / len(values)
    every = math.ceil(len(values) / max(1, int((WIDTH - LEFT - RIGHT) / (7 * max(map(len, names)) + 8))))
    parts = []
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        x, top, foot = LEFT + slot * number, up(max(value, 0.0)), up(min(value, 0.0))
        parts.append(
            f'<rect x="{x + slot * 0.12:.1f}" y="{top:.1f}" width="{slot * 0.76:.1f}"'
            f' height="{max(foot - top, 0.5):.1f}" fill="{_COLOUR}"/>'
        )
        if number % every == 0:
            parts.append(_x_tick(x + slot / 2, name))
    return _svg("", _y_grid(low, high, up) + "".join(parts))


def _svg(title: str, body: str) -> str:
    shown = html.escape(title if len(title) <= 70 else f"{title[:69]}…")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="11" fill="#333">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text x="{LEFT}" y="16" font-size="12">{shown}</text>{body}</svg>'
    )


def _y_grid(low: float, high: float, up: Callable[[float], float]) -> str:
    parts = []
    for value in _ticks(low, high, 6):
        y = up(value)
        stroke = "#888" if value == 0 else "#ddd"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{stroke}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    return "".join(parts)


def _x_tick(x: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{html.escape(text)}</text>'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _range(values: list[float]) -> tuple[float, float]:
    """Of the axis; a pole does not flatten the rest: far outliers are left outside."""
    low, high = min(values), max(values)
    ordered = sorted(values)
    inner_low, inner_high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    if high - low > 20 * (inner_high - inner_low) > 0:
        margin = inner_high - inner_low
        low, high = max(low, inner_low - margin), min(high, inner_high + margin)
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high == low:
        half = max(1.0, abs(low) * 0.1)
        return low - half, high + half
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between `low` and `high`: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, first + most + 2) if n * step <= high + 1e-9 * step]
