"""A drawing of figures: a bar to the median, a line to the 99th percentile. Pure; SVG 1.1."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LABEL, ROW, PAD = 1000, 380, 34, 12  # pixels
STEPS = (1, 2, 5)  # times a power of ten: between two marks of the scale
MARKS = 6  # at most


class Bar(NamedTuple):
    name: str
    median: float
    p99: float


def bars(title: str, figures: Sequence[Bar]) -> str:
    """From zero, so that lengths compare as the figures do. ValueError: there is none."""
    most = max(each.p99 for each in figures)
    scale = (WIDTH - LABEL - 4 * PAD) / most
    height = ROW * len(figures) + 5 * PAD + 20
    bottom = height - 2 * PAD
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{PAD}" y="22" font-weight="bold">{escape(title)}</text>',
    ]
    for mark in marks(most):
        x = LABEL + mark * scale
        drawn.append(f'<path d="M{x:.1f} 32V{bottom - 14}" stroke="#ddd"/>')
        drawn.append(f'<text x="{x:.1f}" y="{bottom}" text-anchor="middle">{mark:g}</text>')
    for number, each in enumerate(figures):
        y = 40 + number * ROW
        middle = y + 9
        median, p99 = LABEL + each.median * scale, LABEL + each.p99 * scale
        drawn += [
            f'<text x="{LABEL - PAD}" y="{y + 13}" text-anchor="end">{escape(each.name)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{median - LABEL:.1f}" height="18" fill="#4a7ebb"/>',
            f'<path d="M{median:.1f} {middle}H{p99:.1f}M{p99:.1f} {y + 3}V{y + 15}"'
            f' stroke="#333" fill="none"/>',
            f"<title>{escape(each.name)}: median {each.median:.0f}, p99 {each.p99:.0f}</title>",
        ]
    return "\n".join([*drawn, "</svg>"]) + "\n"


def marks(most: float) -> list[float]:
    """Round numbers from 0 up to `most`, at most six of them."""
    power = 10.0**-9
    while True:
        for step in STEPS:
            if most / (step * power) < MARKS:
                return [number * step * power for number in range(int(most / (step * power)) + 1)]
        power *= 10
