"""How much of a task's rows the limits on tokens cut away, and which answers no generation can reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from adept.data.codec import Codec
from adept.data.example import Example


@dataclass(frozen=True)
class Truncation:
    """Of the rows of all splits. Lengths are in tokens, as they would be without a limit: targets' with EOS."""

    rows: int
    sources_cut: int
    longest_source: int
    max_source_len: int
    targets_cut: int
    longest_target: int
    max_target_len: int

    def record(self) -> dict[str, int]:
        """What the run record holds."""
        return asdict(self)

    def line(self) -> str:
        """One line for the start of a run."""
        parts = [
            f"{kind}s up to {longest} tokens of --max_{kind}_len {limit}, "
            f"{percent(cut, self.rows)} of {self.rows:,} cut"
            for kind, longest, limit, cut in (
                ("source", self.longest_source, self.max_source_len, self.sources_cut),
                ("target", self.longest_target, self.max_target_len, self.targets_cut),
            )
        ]
        return "; ".join(parts)


def percent(part: int, whole: int) -> str:
    """A share in words: "none", "all", "0.3%"."""
    if part in (0, whole):
        return "none" if part == 0 else "all"
    return f"{100 * part / whole:.2g}%"


def measure_truncation(codec: Codec, examples: Sequence[Example]) -> Truncation:
    """Compares the rows with the codec's limits. examples: encoded.

    Only rows that fill a limit can have been cut, so only these are tokenised once more.
    """
    sources = {e.source: len(e.source_ids) for e in examples}
    targets = {e.target: len(e.target_ids) for e in examples}
    sources |= codec.source_lengths([text for text, n in sources.items() if n >= codec.max_source_len])
    targets |= codec.target_lengths([text for text, n in targets.items() if n >= codec.max_target_len])
    return Truncation(
        rows=len(examples),
        sources_cut=sum(sources[e.source] > codec.max_source_len for e in examples),
        longest_source=max(sources.values(), default=0),
        max_source_len=codec.max_source_len,
        targets_cut=sum(targets[e.target] > codec.max_target_len for e in examples),
        longest_target=max(targets.values(), default=0),
        max_target_len=codec.max_target_len,
    )


def unreachable_answers(codec: Codec, examples: Iterable[Example], max_new_tokens: int) -> int:
    """The number of rows each of whose references has more tokens than are generated."""
    references = [e.references for e in examples]
    lengths: Mapping[str, int] = codec.target_lengths(sorted({text for texts in references for text in texts}))
    return sum(min(lengths[text] for text in texts) - 1 > max_new_tokens for texts in references)  # EOS is not needed
