"""Measures what the paper's theory claims about the first layer's attention (Section 3.4, Eq. 5-7; Appendix A, Eq. 8).

attention.py takes the attention from a model's own forward pass and compares it; theory.py applies that to several
adapters and makes the table and the figure.
"""

from adept.analysis.attention import first_layer_patterns, measure_attention, without_offset
from adept.analysis.theory import draw_theory, measure_theory, theory_markdown

__all__ = [
    "draw_theory",
    "first_layer_patterns",
    "measure_attention",
    "measure_theory",
    "theory_markdown",
    "without_offset",
]
