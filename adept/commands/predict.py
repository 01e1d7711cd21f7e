"""Answers rows with one trained run or several.

python -m adept predict RUN_ID --input rows.jsonl --output answers.jsonl
python -m adept predict RUN_ID                        a prompt: a text or a row as JSON a line
python -m adept predict RUN_ID RUN_ID --input rows.csv    the column "adapter" names the run of each row

Rows have the columns of the run's task (labels are not needed), or are ready sources, {"source": text}; with --raw each
line is a source. An output line is its row with "prediction", and "probabilities" of the labels where these are scored
by likelihood, or with --probabilities. Runs of one base model answer in one batch. The same command goes on where a
killed one stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adept.base.console import print_result, print_status, progress_bar
from adept.base.errors import UserError, first_line
from adept.config.command_line import OneLineParser
from adept.config.run import OPTIONS

if TYPE_CHECKING:
    from adept.serving.questions import InputRows, Question, QuestionReader
    from adept.serving.run_set import RunSet

OVERRIDES = ("model", "scoring", "max_new_tokens", "precision", "device", "eval_batch_size")
"""Options of the runs that can be changed."""

PLACES = ("device", "eval_batch_size")
"""Those of them that change predictions by rounding alone."""

BATCHES_A_CHUNK = 4
"""Batches of rows that are sorted by length together, and written together."""


def make_parser() -> OneLineParser:
    """The command line of `predict`."""
    parser = OneLineParser(
        prog="python -m adept predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("runs", nargs="+", metavar="RUN_ID", help="run ids, or adapter folders")
    parser.add_argument(
        "--input", metavar="FILE", help=".jsonl, .csv or .parquet; '-' is standard input [a prompt, or '-']"
    )
    parser.add_argument("--output", metavar="FILE", help="JSON lines; a killed prediction goes on there [stdout]")
    parser.add_argument("--raw", action="store_true", help="each line of the input is a source")
    parser.add_argument("--column", default="adapter", help="the column that names a row's run [%(default)s]")
    parser.add_argument("--beams", type=int, default=1, help="beams of a search in place of greedy decoding [1]")
    parser.add_argument("--probabilities", action="store_true", help="of the labels, also where answers are generated")
    parser.add_argument("--results_dir", default="results", help="folder of the runs [%(default)s]")
    for name in OVERRIDES:
        parser.add_argument(f"--{name}", help=f"in place of the run's own: {OPTIONS[name].description}")
    return parser


def main(arguments: list[str]) -> int:
    """Answers the rows that the command line names, or those of a prompt."""
    options = make_parser().parse_args(arguments)
    overrides = {name: value for name in OVERRIDES if (value := getattr(options, name)) is not None}
    from adept.serving.questions import STDIN, InputRows
    from adept.serving.run_set import RunSet

    at_prompt = options.input is None and sys.stdin is not None and sys.stdin.isatty()
    if options.raw and len(options.runs) > 1 and not at_prompt:
        raise UserError("--raw lines cannot choose among several runs: name one, or give rows with a column that does")
    runs = RunSet(
        options.runs, results_dir=options.results_dir, beams=options.beams, probabilities=options.probabilities,
        **overrides,
    )  # fmt: skip
    try:
        if at_prompt:
            if options.output is not None:
                raise UserError("--output needs --input: what is typed at a prompt is answered there")
            return prompt_loop(runs)
        rows = InputRows(options.input or STDIN, raw=options.raw)
        predict(runs, rows, options.column, options.output)
    except BrokenPipeError:  # whoever read standard output has seen enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as error:
        where = f"the predictions so far are in {options.output}; the same command goes on" if options.output else ""
        raise KeyboardInterrupt(f"interrupted; {where or 'the predictions so far are printed'}") from error
    return 0


def predict(runs: RunSet, rows: InputRows, column: str, output: str | None) -> None:
    """Answers the rows in their order; writes them to the file `output`, or to stdout where that is None."""
    from adept.serving.predictions_file import PredictionsFile, to_line
    from adept.serving.questions import QuestionReader

    reader, total = QuestionReader(runs, column), None
    if rows.repeatable:  # every row is read before the first is answered: a bad one shows at once
        total = sum(1 for where, row in rows if reader.read(where, row))
    questions = ((where, reader.read(where, row)) for where, row in rows)
    if output is None:
        answer_all(runs, (question for _, question in questions), total, lambda lines: write_stdout(lines, to_line))
        return
    file = PredictionsFile(Path(output), settings_of(runs, column, raw=rows.raw))
    answered = file.skip_answered((where, question.row) for where, question in questions)
    if answered and answered == total:
        print_status(f"already done: {output} has all {total:,} rows")
        return
    if answered:
        print_status(f"{output} has {answered:,} rows already; going on")
    with file.opened() as opened:
        remaining = None if total is None else total - answered
        answer_all(runs, (question for _, question in questions), remaining, lambda lines: file.write(opened, lines))


def settings_of(runs: RunSet, column: str, *, raw: bool) -> dict[str, Any]:
    """What decides about predictions, besides the rows."""
    own = {name: value for name, value in runs.overrides.items() if name not in PLACES}
    column = {"column": column} if len(runs.names) > 1 else {}
    asked = {"raw": raw, "beams": runs.beams, "probabilities": runs.with_probabilities}
    return {"runs": runs.identity(), **column, **asked, **own}


def answer_all(
    runs: RunSet,
    questions: Iterator[Question],
    total: int | None,
    write: Callable[[Sequence[Mapping[str, Any]]], None],
) -> None:
    """Answers the questions a chunk at a time, writes each chunk's lines, and reports progress on stderr."""
    from adept.serving.predictions_file import chunks

    runs.load()
    size = BATCHES_A_CHUNK * min(config.eval_batch_size for config in runs.configs.values())
    started, count = time.perf_counter(), 0
    with contextlib.closing(progress_bar(total, "row")) as bar:
        for chunk in chunks(questions, size):
            answers = iter(runs.answers([request for question in chunk for request in question.requests]))
            write([question.answered([next(answers) for _ in question.texts]) for question in chunk])
            count += len(chunk)
            bar.update(len(chunk))
    seconds = time.perf_counter() - started
    print_status(f"{count:,} rows in {seconds:.1f} s, {count / seconds:.1f} rows/s")


def write_stdout(rows: Sequence[Mapping[str, Any]], to_line: Callable[[Mapping[str, Any]], str]) -> None:
    print_result("".join(map(to_line, rows)).removesuffix("\n"))


# The prompt -----------------------------------------------------------------------------------------------------------


def prompt_loop(runs: RunSet) -> int:
    """Answers each line that is typed, until the end of the input or Ctrl-C.

    A line is a text, which is a source as it is, or a row as JSON. Several runs answer each line unless its row names
    one. A mistake costs a line and nothing else.
    """
    from adept.serving.questions import QuestionReader

    runs.load()
    print_status("a source, or a row as JSON, and Enter; Ctrl-D ends")
    try:
        while True:
            print("> ", end="", file=sys.stderr, flush=True)
            if not (line := sys.stdin.readline()):
                break
            if line.strip():
                try:
                    print_result(answer_line(runs, QuestionReader(runs), line.strip()))
                except UserError as error:
                    print_status(f"error: {error}")
    except KeyboardInterrupt:
        pass
    print(file=sys.stderr)
    return 0


def answer_line(runs: RunSet, reader: QuestionReader, line: str) -> str:
    """The lines that answer a line: "prediction", behind its run's name where several runs answer."""
    row = {"source": line}
    if line.startswith("{"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON ({first_line(error)})") from error
    named = [runs.find(str(row[reader.column]))] if reader.column in row else runs.names
    texts = {name: [row["source"]] if row.keys() == {"source"} else reader.texts(name, row) for name in named}
    answers = iter(runs.answers([(name, text) for name, own in texts.items() for text in own]))
    lines = []
    for name, own in texts.items():
        for answer in (next(answers) for _ in own):
            probabilities = {label: round(value, 4) for label, value in (answer.probabilities or {}).items()}
            parts = [
                *([name] if len(named) > 1 else []),
                answer.text,
                *map(json.dumps, [probabilities] * bool(probabilities)),
            ]
            lines.append("\t".join(parts))
    return "\n".join(lines)
