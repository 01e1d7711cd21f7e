"""What the paper measures besides scores: sizes of offsets (Table 2), shifted and absent offsets (Tables 1 and 11), first-layer
attention (Section 3.4, Eq. 5-7, and Appendix A, Eq. 8).

python -m adept.analysis [--model NAME] [--adapters RUN_ID ...] [--results_dir DIR]

Writes RESULTS_DIR/tables/theory.json, .md and .png: the first layer's attention of the frozen model and of adapters, by default those
of configs/quickstart.yaml, and of a small random T5.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adept import checkpoint, models, results
from adept.config import FIELDS, ROOT, OneLineParser, RunConfig, UserError, model_label
from adept.data import Example, load_data, pad
from adept.embedding import PositionOffset, PromptedEmbedding
from adept.loop import Session, open_session
from adept.methods import METHODS
from adept.report import MISSING
from adept.sweep import load_table

BINS = 40
"""Of the histograms of norms."""

FILLER, MOVED_BY = " and so on, and so forth", 16
"""Section 3.2's "meaningless sequence", repeated to this many tokens."""

TINY = 1e-30
"""Attention below this has lost digits in fp32."""


def hook_of(session: Session) -> PromptedEmbedding | None:
    """The session's prompted embedding; None where the method has none."""
    return next((m for m in session.model.modules() if isinstance(m, PromptedEmbedding)), None)


# Offsets changed at evaluation (Tables 1 and 11) ------------------------------------------------------------------------


@contextlib.contextmanager
def shift_offsets(session: Session, k: int) -> Iterator[None]:
    """Inside, DePT's s offsets are cyclically shifted left by k (Table 1): index j carries row (j + k) mod s.

    Raises UserError for a method whose offset is not one of positions.
    """
    offset = getattr(hook_of(session), "offset", None)
    if not isinstance(offset, PositionOffset):
        raise UserError(f"method '{session.config.method}' has no offset of positions that could be shifted; 'dept' has")
    before, offset.shift = offset.shift, k
    try:
        yield
    finally:
        offset.shift = before


@contextlib.contextmanager
def without_offsets(session: Session) -> Iterator[None]:
    """Inside, the model sees the learned prompt but no offset (Table 11). Raises UserError for a method without offsets."""
    hook = hook_of(session)
    if hook is None or hook.offset is None:
        raise UserError(f"method '{session.config.method}' has no offset that could be left out; 'dept' and 'adept' have")
    before, hook.use_offset = hook.use_offset, False
    try:
        yield
    finally:
        hook.use_offset = before


# Sizes of embeddings and offsets (Table 2) ------------------------------------------------------------------------------


class Sizes:
    """Absolute values of vectors that arrive in batches: moments over their elements, means by dimension, a histogram of norms."""

    def __init__(self, width: int):
        self.elements, self.total, self.squares = 0, 0.0, 0.0  # over real tokens
        self.positions, self.columns = 0, np.zeros(width)  # over all positions
        self.top, self.counts = 2.0**-20, np.zeros(BINS, dtype=int)  # norms lie in [0, top)

    def add(self, vectors: Tensor, real: Tensor, positions: Tensor) -> None:
        """vectors [B, T, D]; real, positions [B, T]: which are tokens of the text, and which the released code averages over."""
        absolute = vectors.abs().to(torch.promote_types(vectors.dtype, torch.float32))
        self.positions += int(positions.sum())
        self.columns += (absolute * positions[..., None]).sum((0, 1)).double().cpu().numpy()
        self.elements += int(real.sum()) * vectors.shape[-1]
        self.total += absolute.sum(-1)[real].cpu().double().sum().item()
        squares = absolute.square().sum(-1)[real].cpu().double().numpy()
        self.squares += squares.sum().item()
        norms = np.sqrt(squares)
        while self.top <= norms.max(initial=0) < np.inf:  # twice the range: neighbouring bins merge
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, dtype=int)])
            self.top *= 2
        self.counts += np.bincount((norms / self.top * BINS).astype(int), minlength=BINS)

    def of_tokens(self) -> dict:
        """Mean and variance of the elements' absolute values (Table 2), and how the tokens' norms are distributed."""
        mean = self.total / self.elements
        edges = (np.arange(BINS + 1) * self.top / BINS).tolist()
        variance = max(0.0, self.squares / self.elements - mean**2)
        return {"mean": mean, "variance": variance, "norms": {"edges": edges, "counts": self.counts.tolist()}}

    def of_dimensions(self) -> dict:
        """Mean and standard deviation of the D means of absolute values over all positions (what the released code prints)."""
        means = self.columns / self.positions
        return {"mean": means.mean().item(), "std": means.std().item()}


@torch.no_grad()
def offset_statistics(session: Session, examples: Sequence[Example]) -> dict:
    """Absolute values of the elements of E and of the offset, over encoded examples' sources, the prompt left out (Table 2).

    {"tokens", "embeddings": {"mean", "variance", "norms": {"edges", "counts"}}, "offset": the same, or absent without an offset,
    "released": {"positions", "embeddings": {"mean", "std"}, "offset"}}. `mean` and `variance` are over real tokens, as the text has it;
    `norms` is a histogram of the tokens' Euclidean norms; `released` is the released code's statistic: mean and standard deviation of
    the D means over all positions, padding up to --max_source_len included.
    """
    if not examples:
        raise UserError("no examples to measure offsets on")
    codec, hook = session.codec, hook_of(session)
    table = hook or models.input_embedding_owner(session.model).get_input_embeddings()
    sizes: dict[str, Sizes] = {}
    width = len(codec.prompt_ids) + codec.max_source_len
    was_training = session.model.training
    session.model.eval()
    for start in range(0, len(examples), session.config.eval_batch_size):
        rows = [(*codec.prompt_ids, *e.source_ids) for e in examples[start : start + session.config.eval_batch_size]]
        ids = pad(rows, codec.tokenizer.pad_token_id, "right", width).to(session.device)  # [B, width]
        content = torch.arange(width, device=ids.device) >= len(codec.prompt_ids)
        real = content & (torch.arange(width) < torch.tensor([[len(row)] for row in rows])).to(ids.device)
        embeds, offset = hook.parts(ids)[:2] if hook else (table(ids), None)
        for name, vectors in {"embeddings": embeds, "offset": offset}.items():
            if vectors is not None:
                sizes.setdefault(name, Sizes(vectors.shape[-1])).add(vectors, real, content.expand_as(real))
    session.model.train(was_training)
    return {
        "tokens": sum(len(e.source_ids) for e in examples),
        **{name: size.of_tokens() for name, size in sizes.items()},
        "released": {"positions": sizes["embeddings"].positions, **{name: size.of_dimensions() for name, size in sizes.items()}},
    }


# First-layer attention (Eq. 5-8) ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attention:
    """One text's n content tokens in the first layer: what each attends to, by head, and what was added to its embedding.

    `relative` is over the content alone and renormalised, which drops Eq. 6's factor 1 - sum_k A_i,p_k.
    """

    relative: Tensor  # [H, n, n], rows sum to 1, or nan where the prompt leaves the content less than TINY
    prompt: Tensor  # [H, n, m]: A_i,p_k
    embeds: Tensor  # [n, D]: E
    offset: Tensor | None  # [n, D]


@torch.no_grad()
def attention_patterns(session: Session, texts: Sequence[str], *, adapted: bool = True, filler: Sequence[int] = ()) -> list[Attention]:
    """The attention of each text's tokens in the model's own forward pass.

    adapted=False: the frozen model, without prompt and offset. filler: ids between prompt and text, which are no content.
    Raises UserError for a method without a prompted embedding.
    """
    hook = hook_of(session)
    if hook is None:
        raise UserError(f"method '{session.config.method}' does not act in the input embedding; 'pt', 'dept' and 'adept' do")
    prompt = session.codec.prompt_ids if adapted else ()
    bare = without_offsets(session) if not adapted and hook.offset is not None else contextlib.nullcontext()
    was_training = session.model.training
    session.model.eval()
    found = []
    with bare:
        for example in session.codec.encode([Example(str(i), text, "", ()) for i, text in enumerate(texts)]):
            ids = torch.tensor([[*prompt, *filler, *example.source_ids]], device=session.device)
            start = len(prompt) + len(filler)
            weights = models.first_layer_attention(session.model, ids)[0, :, start:].float().cpu()  # [H, n, T]
            content = weights[..., start:]
            total = content.sum(-1, keepdim=True)
            embeds, offset, _ = hook.parts(ids)
            found.append(
                Attention(
                    relative=content / total.where(total > TINY, torch.nan),
                    prompt=weights[..., : len(prompt)],
                    embeds=embeds[0, start:].cpu(),
                    offset=None if offset is None else offset[0, start:].cpu(),
                )
            )
    session.model.train(was_training)
    return found


def distance(one: Sequence[Attention], other: Sequence[Attention]) -> Tensor:
    """Total variation between the relative attention of the same queries, [H, N]; a text's first token is left out, because under a
    causal mask it has nothing to choose from."""
    return torch.cat([(a.relative - b.relative).abs().sum(-1)[:, 1:] / 2 for a, b in zip(one, other, strict=True)], dim=1)


def by_head(values: Tensor) -> dict:
    """[H, N] -> mean, smallest, largest; each head's mean and standard deviation over its queries. nan is left out and counted."""
    rows = values.double().numpy()
    return {
        "mean": np.nanmean(rows).item(),
        "min": np.nanmin(rows).item(),
        "max": np.nanmax(rows).item(),
        "heads": np.nanmean(rows, axis=1).tolist(),
        "spreads": np.nanstd(rows, axis=1).tolist(),
        "undefined": int(np.isnan(rows).sum()),
    }


def measure(session: Session, texts: Sequence[str], *, adapted: bool = True) -> dict:
    """What a method does to the first layer's attention; adapted=False: the frozen model itself.

    change: distance of the relative attention to the frozen model's (Eq. 6: 0 for PT; Eq. 7, 8: not for ADePT and DePT).
    moved: its distance to itself when MOVED_BY meaningless tokens stand before the text (Section 3.2: 0 but for DePT).
    prompt: sum_k A_i,p_k, Eq. 6's coefficient; mixture: how far a query's weights among the prompt's tokens are from its head's mean.
    offset_size, offset_moved: mean norm relative to E's, and how much of itself it changes when the text moves.
    """
    ids = session.codec.ids(FILLER, special=False)
    filler = [ids[i % len(ids)] for i in range(MOVED_BY)]
    frozen = attention_patterns(session, texts, adapted=False)
    here = attention_patterns(session, texts, adapted=adapted)
    there = attention_patterns(session, texts, adapted=adapted, filler=filler)
    found = {"change": by_head(distance(frozen, here)), "moved": by_head(distance(here, there))}
    prompt = torch.cat([a.prompt[:, 1:] for a in here], dim=1)  # [H, N, m]
    if prompt.shape[-1]:
        weight = prompt.sum(-1)
        mixture = prompt / weight.where(weight > TINY, torch.nan)[..., None]
        found["prompt"] = by_head(weight)
        found["mixture"] = by_head((mixture - mixture.nanmean(1, keepdim=True)).abs().sum(-1) / 2)
    if here[0].offset is not None:
        embeds = torch.cat([a.embeds for a in here])
        offset, moved = (torch.cat([a.offset for a in attention]) for attention in (here, there))
        size = offset.norm(dim=-1).mean()
        found["offset_size"] = (size / embeds.norm(dim=-1).mean()).item()
        found["offset_moved"] = ((moved - offset).norm(dim=-1).mean() / size).item()
    return found


# The table of the theory ------------------------------------------------------------------------------------------------


def quickstart(**overrides) -> list[RunConfig]:
    """The runs of configs/quickstart.yaml that have a prompt."""
    table = load_table(ROOT / "configs" / "quickstart.yaml", overrides)
    return [config for config in table.configs if METHODS[config.method].virtual_prompt]


def sessions(adapters: Sequence[str], places: Mapping[str, str]) -> Iterator[tuple[str, Session]]:
    """(where its numbers come from, session in fp32): the trained adapters, then the quickstart's methods on a random T5.

    There prompts are embeddings of tokens and offsets come from a normal distribution. Raises UserError for an adapter that is not there.
    """
    for name in adapters:
        session = checkpoint.load(name, precision="fp32", **places)
        yield name, session
    with tempfile.TemporaryDirectory() as scratch:
        models.random_t5(folder := Path(scratch) / "random-t5", session.codec.tokenizer)
        for config in quickstart(model=str(folder), precision="fp32", **places):
            session = open_session(config)
            offset = hook_of(session).offset
            for parameter in offset.parameters() if offset is not None else ():
                torch.nn.init.normal_(parameter, std=0.3)
            yield "random", session


def theory(adapters: Sequence[str], rows: int, places: Mapping[str, str]) -> dict:
    """{"texts", "moved_by", "rows": [{"model", "method", "from", and what `measure` finds}]} on the first test rows of a session's task."""
    found: list[dict] = []
    for origin, session in sessions(adapters, places):
        texts = [example.source for example in load_data(session.task, session.config).test[:rows]]
        model = model_label(session.config.model)
        if model not in {row["model"] for row in found}:
            found.append({"model": model, "method": "frozen model", "from": None, **measure(session, texts, adapted=False)})
        found.append({"model": model, "method": session.config.method, "from": origin, **measure(session, texts)})
    return {"texts": len(texts), "moved_by": MOVED_BY, "rows": found}


def markdown(found: dict) -> str:
    """The table of theory.json."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.2g}"

    lines = [
        f"**First-layer attention, {found['texts']} texts**",
        "",
        "| model | method | change: mean (max) | change when moved: mean (max) | attention to the prompt: mean ± std (min to max) "
        "| mixture | size of the offset | its change when moved |",
        "|" + "---|" * 8,
    ]
    for row in found["rows"]:
        change, moved, prompt = row["change"], row["moved"], row.get("prompt")
        cells = [
            row["model"],
            row["method"],
            f"{number(change['mean'])} ({number(change['max'])})",
            f"{number(moved['mean'])} ({number(moved['max'])})",
            f"{number(prompt['mean'])} ± {number(np.mean(prompt['spreads']))} ({number(prompt['min'])} to {number(prompt['max'])})"
            if prompt
            else MISSING,
            number(row["mixture"]["mean"]) if prompt else MISSING,
            number(row.get("offset_size")),
            number(row.get("offset_moved")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    adapters = ", ".join(f"{row['method']} {row['from']}" for row in found["rows"] if row["from"] not in (None, "random"))
    undefined = sum(row[name]["undefined"] for row in found["rows"] for name in ("change", "moved"))
    lines += [
        "",
        "Change: total variation distance (0 to 1) between a query's attention over the content, renormalised, and the frozen model's; "
        f"when moved: between the same and that with {found['moved_by']} meaningless tokens before the text. Attention to the prompt: the "
        "coefficient of Eq. 6's bias, ± over a head's queries; mixture: distance of a query's attention among the prompt's tokens from its "
        "head's mean. Offset: mean norm over the embeddings' mean norm; its change over its own. All heads, all queries but a text's first"
        + (f"; {undefined} distances are not defined because the prompt takes all attention." if undefined else "."),
        f"Adapters: {adapters}. random-t5: one layer of random weights, prompts of tokens' embeddings, random offsets.",
    ]
    return "\n".join(lines) + "\n"


def figure(found: dict, path: Path) -> None:
    """By head, a row for each model: change, change when moved, attention to the prompt with its spread over queries."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["model"] for row in found["rows"]))
    panels = {
        "change": "change against the frozen model",
        "moved": f"change when moved by {found['moved_by']} tokens",
        "prompt": "attention to the prompt, ± std over queries",
    }
    drawn, axes = plt.subplots(len(names), len(panels), figsize=(13, 0.6 + 3.2 * len(names)), squeeze=False, layout="constrained")
    for line, model in zip(axes, names, strict=True):
        rows = [row for row in found["rows"] if row["model"] == model]
        for axis, (panel, title) in zip(line, panels.items(), strict=True):
            for number, row in enumerate(rows):
                if panel in row and not (panel == "change" and row["from"] is None):
                    heads = np.arange(len(row[panel]["heads"])) + 0.14 * (number - 1.5)
                    spread = row[panel]["spreads"] if panel == "prompt" else None
                    axis.errorbar(heads, row[panel]["heads"], spread, fmt="o", markersize=5, color=f"C{number}", label=row["method"])
            axis.set(title=title if model == names[0] else "", xlabel="head", xticks=range(len(rows[0]["change"]["heads"])))
            if panel != "prompt":
                axis.set(yscale="log", ylim=(1e-8, 2))
            axis.grid(alpha=0.3)
        line[0].set_ylabel(f"{model}\ntotal variation distance")
    drawn.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=len(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


def main(arguments: list[str]) -> int:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--model", default=models.BUNDLED, help="model of the quickstart's adapters [%(default)s]; --adapters know theirs")
    parser.add_argument("--adapters", nargs="+", metavar="RUN_ID", help="trained adapters, run ids or folders [the quickstart's]")
    parser.add_argument("--rows", type=int, default=48, help="test rows to look at [%(default)s]")
    parser.add_argument("--results_dir", default="results", help="where runs are found and tables written [%(default)s]")
    for name in ("data_dir", "device"):
        parser.add_argument(f"--{name}", help=f"as in train.py: {FIELDS[name].metadata['help']}")
    try:
        options = vars(parser.parse_args(arguments))
        places = {name: options[name] for name in ("results_dir", "data_dir", "device") if options[name] is not None}
        if options["rows"] < 1:
            raise UserError(f"--rows must be a whole number >= 1, not {options['rows']}")
        adapters = options["adapters"] or [config.run_id for config in quickstart(model=options["model"])]
        found = theory(adapters, options["rows"], places)
        folder = Path(options["results_dir"]) / "tables"
        results.write_atomically(folder / "theory.json", json.dumps(found, indent=1) + "\n")
        results.write_atomically(folder / "theory.md", markdown(found))
        figure(found, folder / "theory.png")
        print(f"{markdown(found)}\ntable:  {folder / 'theory.md'}\nfigure: {folder / 'theory.png'}")
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
