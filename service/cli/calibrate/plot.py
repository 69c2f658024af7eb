"""The curve as a picture. Pure, no I/O.

Drawn as SVG by hand: a few lines and labels are not worth a plotting library, and every browser shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from service.cli.calibrate.curve import Point

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 740, 84, 400
_TITLE = 100
# Told apart without colours too: one line is dashed. Both hues are of a palette for colour-blind readers.
_COVERAGE, _FALSE = "#0072b2", "#d55e00"


def draw(points: Sequence[Point], *, title: str, chosen: Point | None, default: float) -> str:
    """An SVG document: both shares over the threshold, with the intervals of false accepts.

    Args:
        points: at least two, by threshold.
        title: what was asked.
        chosen: the threshold to mark, if one was chosen.
        default: the threshold to compare it with.
    """
    title = _line_of(title)
    shown = title if len(title) <= _TITLE else title[: _TITLE - 1] + "…"
    first, last = points[0].threshold, points[-1].threshold

    def x(threshold: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (threshold - first) / (last - first)

    def y(share: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="13" fill="#222">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="26" font-size="16" font-weight="bold">Fast answers by threshold</text>',
        f'<text x="{_LEFT}" y="46" fill="#555">{escape(shown)}</text>',
        *_axes(first, last, x, y),
        *_band(points, x, y),
        _marker(x(default), f"default {default:g}", "#777", _TOP + 14),
    ]
    if chosen is not None:
        parts.append(_marker(x(chosen.threshold), f"chosen {chosen.threshold:g}", "#000", _TOP + 30))
    covered = [(x(point.threshold), y(point.coverage.value or 0)) for point in points]
    wrong = [(x(p.threshold), y(p.false_accepts.value)) for p in points if p.false_accepts.value is not None]
    parts += [
        _line(covered, _COVERAGE),
        _line(wrong, _FALSE, dashed=True),
        *_legend(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axes(first: float, last: float, x: Callable[[float], float], y: Callable[[float], float]) -> Iterable[str]:
    for percent in range(0, 101, 20):
        at = y(percent / 100)
        yield f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{_RIGHT}" y2="{at:.1f}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{percent} %</text>'
    for step in range(9):
        threshold = first + (last - first) * step / 8
        yield f'<line x1="{x(threshold):.1f}" y1="{_BOTTOM}" x2="{x(threshold):.1f}" y2="{_BOTTOM + 5}" stroke="#222"/>'
        yield f'<text x="{x(threshold):.1f}" y="{_BOTTOM + 20}" text-anchor="middle">{threshold:g}</text>'
    yield f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="#222"/>'
    middle = (_LEFT + _RIGHT) / 2
    yield f'<text x="{middle}" y="{_BOTTOM + 44}" text-anchor="middle">gap_threshold, least logit gap in nats</text>'
    across = (_TOP + _BOTTOM) / 2
    yield f'<text transform="translate(18 {across}) rotate(-90)" text-anchor="middle">share</text>'


def _band(points: Sequence[Point], x: Callable[[float], float], y: Callable[[float], float]) -> Iterable[str]:
    """The intervals of false accepts."""
    known = [point for point in points if point.false_accepts.total]
    if known:
        lower = [(x(point.threshold), y(point.false_accepts.interval[0])) for point in known]
        upper = [(x(point.threshold), y(point.false_accepts.interval[1])) for point in known]
        yield f'<polygon points="{_pairs([*upper, *reversed(lower)])}" fill="{_FALSE}" fill-opacity="0.15"/>'


def _line(pairs: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="7 4"' if dashed else ""
    return f'<polyline points="{_pairs(pairs)}" fill="none" stroke="{colour}" stroke-width="2.5"{dashes}/>'


def _marker(at: float, label: str, colour: str, label_at: float) -> str:
    # Near the right edge there is no room for a label on that side.
    side, anchor = (at - 5, "end") if at > (_LEFT + _RIGHT) / 2 else (at + 5, "start")
    return (
        f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{_BOTTOM}" stroke="{colour}" stroke-dasharray="2 3"/>'
        f'<text x="{side:.1f}" y="{label_at}" text-anchor="{anchor}" fill="{colour}">{label}</text>'
    )


def _legend() -> Iterable[str]:
    yield _line([(_LEFT, 66), (_LEFT + 28, 66)], _COVERAGE)
    yield f'<text x="{_LEFT + 36}" y="70">coverage: answered fast, of all questions</text>'
    yield _line([(_LEFT + 330, 66), (_LEFT + 358, 66)], _FALSE, dashed=True)
    yield f'<text x="{_LEFT + 366}" y="70">false accepts, of fast answers (95 % interval)</text>'


def _pairs(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _line_of(text: str) -> str:
    """A text as one line, without what XML cannot hold."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())
