"""Numbers as people read them: grouped thousands, a true minus sign, intervals that never stand without their n.

Every function gives a text; none knows HTML. Digits are the same in every language; separators and words are those of
the language in force.
"""

import math

from perdure.measuring.report import Difference, LanguageMeasures, Share
from perdure.web.words import _, percent_sign, separated

MINUS = "\u2212"
TIMES = "\u00d7"
RANGE = "\u2013"
SPACE = "\u00a0"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _signed(text: str) -> str:
    return separated(text).replace("-", MINUS)


def whole(number: int) -> str:
    """A count, such as "1,800"."""
    return _signed(f"{number:,}")


def sample(n: int) -> str:
    """How many items stand behind a figure, such as "n = 1,800"."""
    return f"n{SPACE}={SPACE}{whole(n)}"


def _digits(n: int) -> int:
    # One item in 200 is half a percent: finer digits would say more than the items can.
    return 0 if n <= 200 else 1


def percent(value: float, n: int) -> str:
    """A share of n items, such as "92%"; nothing rounds to 0% or 100% that is not."""
    if not math.isfinite(value):
        return _("unknown")
    digits = _digits(n)
    while digits < 4 and 0 < value < 1 and round(100 * value, digits) in (0, 100):
        digits += 1
    return percentage(value, digits)


def percentage(value: float, digits: int) -> str:
    """A share in percent with so many decimals, such as "3.10%"."""
    return f"{_signed(f'{100 * value:.{digits}f}')}{percent_sign()}"


def decimal(value: float, digits: int, *, plus: bool = False) -> str:
    """A figure with so many decimals, such as "−0.309"; with `plus` a gain has its sign."""
    return _signed(f"{round(value, digits) + 0.0:{'+' if plus else ''}.{digits}f}")


def share(given: Share) -> str:
    """A share with its interval and n, such as "92% (74–98%; n = 24)"."""
    value, interval = percent(given.value, given.n), share_interval(given)
    return _("{value} ({interval}; {n})").format(value=value, interval=interval, n=sample(given.n))


def share_interval(given: Share) -> str:
    """The interval of a share, such as "74–98%"."""
    low, high = percent(given.low, given.n), percent(given.high, given.n)
    return low if low == high else f"{low.removesuffix(percent_sign())}{RANGE}{high}"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed, such as "−0.2"; a small one as "−0.04"."""
    if not math.isfinite(value):
        return _("unknown")
    digits = 1 if round(100 * value, 1) else 2
    rounded = round(100 * value, digits)
    return _signed(f"{rounded:+.{digits}f}") if rounded else "0.0"


def difference_interval(given: Difference) -> str:
    """The interval of a difference in points, such as "−0.9 to +0.5"."""
    return between(points(given.low), points(given.high))


def between(low: str, high: str) -> str:
    """An interval of figures that may have signs, such as "−0.9 to +0.5"."""
    return _("{low} to {high}").format(low=low, high=high)


def in_points(value: float) -> str:
    """A signed difference with its unit, such as "−0.2 points"."""
    return _("{value} points").format(value=points(value))


def size_in_points(value: float) -> str:
    """A difference without its sign, with its unit, such as "0.2 points"."""
    return _("{value} points").format(value=points(value).removeprefix("+"))


def difference(given: Difference) -> str:
    """A difference with its interval and n, such as "−0.2 points (−0.9 to +0.5; n = 1,800)"."""
    said, interval = in_points(given.value), difference_interval(given)
    return _("{value} ({interval}; {n})").format(value=said, interval=interval, n=sample(given.n))


def number(value: float) -> str:
    """A figure with three significant digits: "0.0042", "18.4", "1,230", "4.56×10⁷"."""
    if math.isnan(value):
        return _("unknown")
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e6):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{_signed(mantissa)}{TIMES}10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    if size >= 100 or size == 0:
        return _signed(f"{value:,.0f}")
    return _signed(f"{value:.{2 - math.floor(math.log10(size))}f}")


def ratio(value: float) -> str:
    """A factor, such as "×1.004" or "×41"."""
    if math.isfinite(value) and 0.01 <= abs(value) < 10:
        return f"{TIMES}{_signed(f'{value:.3f}')}"
    return f"{TIMES}{number(value)}"


def perplexity(value: float) -> str:
    """A perplexity, such as "18.42"."""
    return _signed(f"{value:.2f}") if math.isfinite(value) and abs(value) < 1000 else number(value)


def language_interval(given: LanguageMeasures) -> str:
    """The interval of the perplexity ratio with its n, such as "1.001–1.007; n = 64 passages"."""
    low, high = (ratio(value).removeprefix(TIMES) for value in (given.ratio_low, given.ratio_high))
    return _("{low}–{high}; {n} passages").format(low=low, high=high, n=sample(given.passages))


def size(count: int) -> str:
    """An amount of storage, such as "3.1 MB"."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(amount) < 1000 or unit == "TB":
            break
        amount /= 1000
    return _signed(f"{amount:,.0f}{SPACE}{unit}" if unit == "B" else f"{amount:,.1f}{SPACE}{unit}")


def duration(seconds: float) -> str:
    """A time, such as "8.4 s" or "2 min 05 s"."""
    if not math.isfinite(seconds):
        return _("unknown")
    if round(seconds, 1) < 60:
        return _("{seconds}\u00a0s").format(seconds=_signed(f"{seconds:.1f}"))
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return _("{minutes}\u00a0min\u00a0{seconds}\u00a0s").format(minutes=minutes, seconds=f"{rest:02d}")
    hours, minutes = divmod(minutes, 60)
    return _("{hours}\u00a0h\u00a0{minutes}\u00a0min").format(hours=whole(hours), minutes=f"{minutes:02d}")
