"""Numbers as tables print them."""

from __future__ import annotations


def one_decimal(value: float) -> str:
    """82.0"""
    return f"{value:.1f}"


def three_digits(value: float) -> str:
    """The number with three significant digits and without an exponent if it is large: "0.0104", "1.63", "2,540"."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{float(f'{value:.3g}'):,.0f}"
