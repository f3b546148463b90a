"""A histogram of row lengths as an SVG of our own: nothing to fetch, and readable in light and dark."""

from playground.core.report import Report

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 26, 46  # around the bars


def histogram(report: Report, length: int) -> str:
    """Rows by tokens, with a line at the length at which they would be cut. The CSS is the report's."""
    bins = report.histogram()
    last, most = bins[-1][1], max(rows for _, _, rows in bins)

    def x(tokens: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * tokens / last

    def y(rows: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * rows / most

    bars = "".join(_bar(x, y, *one, length) for one in bins if one[2])
    base = HEIGHT - BOTTOM
    axes = f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{base}H{WIDTH - RIGHT}"/>'
    along = "".join(
        f'<text x="{x(tick):.1f}" y="{base + 16}" text-anchor="middle">{tick:,}</text>' for tick in ticks(last)
    )
    up = "".join(
        f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,}</text>' for tick in ticks(most)
    )
    names = (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">tokens in a row</text>'
        f'<text x="4" y="14">rows</text>'
    )
    return (
        f'<svg class="report-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="How many rows have how many tokens; the longest has {report.longest:,}">'
        f"{axes}{bars}{along}{up}{names}{_cut(x(min(length, last)), length)}</svg>"
    )


def _bar(x, y, start: int, end: int, rows: int, length: int) -> str:
    kind = "bar over" if start > length else "bar"
    height, width = max(1.0, y(0) - y(rows)), max(1.0, x(end) - x(start) - 1)  # one row among thousands is seen too
    said = f"{start:,} to {end - 1:,} tokens: {rows:,} row{'' if rows == 1 else 's'}"
    return (
        f'<rect class="{kind}" x="{x(start):.1f}" y="{y(0) - height:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"><title>{said}</title></rect>'
    )


def _cut(at: float, length: int) -> str:
    side, anchor = (at - 5, "end") if at > WIDTH / 2 else (at + 5, "start")
    return (
        f'<path class="cut" d="M{at:.1f} {TOP - 8}V{HEIGHT - BOTTOM}"/>'
        f'<text x="{side:.1f}" y="{TOP - 10}" text-anchor="{anchor}">cut at {length:,}</text>'
    )


def ticks(most: int, count: int = 4) -> list[int]:
    """Round numbers from 0 to `most`, about `count` of them."""
    step = 1
    while most / step > count:
        step = {"1": step * 2, "2": step * 5 // 2, "5": step * 2}[str(step)[0]]
    return list(range(0, most + 1, step))
