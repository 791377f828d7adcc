"""Lowess: a smooth curve through points by robust local lines.

Source: Cleveland 1979, doi:10.1080/01621459.1979.10481038. The window, the robustness weights, and interpolation
between fits closer than `delta` follow what R documents of `lowess`.
"""

from dataclasses import dataclass

import numpy as np

from pertcast.errors import InputError
from pertcast.types import Floats


@dataclass(frozen=True, slots=True)
class _Local:
    """A local line at one place: the points it sees, and its weights before robustness."""

    at: float
    start: int
    stop: int
    kernel: Floats  # (stop - start,)


def lowess(x: Floats, y: Floats, *, span: float = 2 / 3, iterations: int = 3, delta: float | None = None) -> Floats:
    """Smooth y over x, both (n,); returns the curve at each x (n,), in the order given.

    span        share of the points that a local line sees
    iterations  how often points far off the curve are given less weight and the curve is drawn again
    delta       in units of x: lines are fitted no closer than this, and interpolated between; 1 % of the range of x
                unless given

    Raises InputError for shapes that disagree, values that are not finite and a span outside (0, 1].
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 1 or x.shape != y.shape or not len(x) or not np.isfinite(x).all() or not np.isfinite(y).all():
        raise InputError(f"Lowess: x {x.shape} and y {y.shape} must be finite numbers, as many of one as of the other.")
    if not 0 < span <= 1 or iterations < 0 or (delta is not None and not delta >= 0):
        got = f"span {span}, iterations {iterations}, delta {delta}"
        raise InputError(f"Lowess: the span must be in (0, 1], iterations and delta at least 0, got {got}.")
    if len(x) == 1:
        return y.copy()
    order = np.argsort(x, kind="stable")
    result = np.empty_like(y)
    delta = 0.01 * (x.max() - x.min()) if delta is None else delta
    result[order] = _smooth(x[order], y[order], max(2, min(len(x), int(span * len(x) + 1e-7))), (iterations, delta))
    return result


def _smooth(x: Floats, y: Floats, width: int, settings: tuple[int, float]) -> Floats:
    iterations, delta = settings
    places = _places(x, delta)
    local = _locals(x, places, width)
    robust = np.ones_like(y)
    for round_ in range(iterations + 1):
        fitted = np.array([_line_at(x, y, robust, line) for line in local])
        empty = np.isnan(fitted)  # every weight is 0: the point itself stands for the curve
        fitted[empty] = y[places[empty]]
        curve = np.interp(x, x[places], fitted)
        residual = np.abs(y - curve)
        scale = 6 * np.median(residual)
        if round_ == iterations or scale <= 1e-7 * residual.mean():
            break
        robust = np.where(residual <= 0.001 * scale, 1.0, (1 - np.minimum(residual / scale, 1) ** 2) ** 2)
        robust[residual > 0.999 * scale] = 0.0
    return curve


def _places(x: Floats, delta: float) -> np.ndarray:
    """Numbers of the points where a line is fitted: one per value of x, and of those within delta only the last."""
    places, last, n = [], -1, len(x)
    current = 0
    while True:
        places.append(current)
        last = int(np.searchsorted(x, x[current], side="right")) - 1  # ties share the curve
        if last >= n - 1:
            return np.array(places)
        within = int(np.searchsorted(x, x[current] + delta, side="right")) - 1
        current = max(last + 1, within)


def _locals(x: Floats, places: np.ndarray, width: int) -> list[_Local]:
    """Find the window of the `width` nearest points of each place, and the tricube weights in it."""
    left, n, found = 0, len(x), []
    for place in places:
        while left + width < n and x[place] - x[left] > x[left + width] - x[place]:
            left += 1
        reach = max(x[place] - x[left], x[left + width - 1] - x[place])
        stop = int(np.searchsorted(x, x[place] + reach, side="right"))  # all that are as near as the last one
        distance = np.abs(x[left:stop] - x[place])
        kernel = np.ones(len(distance))
        apart = distance > 0.001 * reach
        kernel[apart] = (1 - (distance[apart] / reach) ** 3) ** 3
        kernel[distance > 0.999 * reach] = 0.0
        found.append(_Local(float(x[place]), left, stop, kernel))
    return found


def _line_at(x: Floats, y: Floats, robust: Floats, line: _Local) -> float:
    """Height of the weighted line at its place, of the mean where the points hardly spread; NaN without weight."""
    part = slice(line.start, line.stop)
    weight = line.kernel * robust[part]
    total = weight.sum()
    if total <= 0:
        return np.nan
    weight = weight / total
    centre = weight @ x[part]
    spread = weight @ (x[part] - centre) ** 2
    if np.sqrt(spread) > 0.001 * (x[-1] - x[0]):
        weight = weight * (1 + (line.at - centre) / spread * (x[part] - centre))
    return float(weight @ y[part])
