"""The model card: README.md of an adapter folder or of an exported folder, from the run's record."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError
from adept.config.run import RunConfig, task_of
from adept.models.families import BUNDLED
from adept.models.loading import hub_model, pipeline_tag
from adept.models.tiny import FIXTURE_FOLDER, fixture_rows
from adept.runs.adapter import DESCRIPTION, WEIGHTS
from adept.tasks.rows import Row
from adept.tasks.task import Task
from adept.training.session import FREE_TEXT_LEN

CARD = "README.md"

Form = Literal["adept", "peft", "plain"]
"""Whose folder it is: this project's adapter, PEFT's adapter, or a model folder of transformers."""

LIBRARY = {"adept": "adept", "peft": "peft", "plain": "transformers"}
RELATION = {"adept": "adapter", "peft": "adapter", "plain": "merge"}

SHARES_OF_ROWS = ("accuracy", "exact_match")
"""Metrics that are the share of right rows, of which rows alone give an interval."""

SHOWN_SETTINGS = (
    "steps", "batch_size", "grad_accum", "schedule", "warmup_steps", "weight_decay", "precision", "seed",
    "max_source_len", "max_target_len", "targets", "scoring", "few_shot", "protocol",
)  # fmt: skip
"""Options of every run that a card lists, besides those of its method."""

PLAIN_USE = """\
import transformers

tokenizer = transformers.AutoTokenizer.from_pretrained({place})
model = transformers.{kind}.from_pretrained({place})
batch = tokenizer([{source}], return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
"""

PEFT_USE = """\
import peft, transformers

tokenizer = transformers.AutoTokenizer.from_pretrained({place})
model = peft.PeftModel.from_pretrained(transformers.{kind}.from_pretrained({base}), {place})
batch = tokenizer([{source}], return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
"""

OWN_USE = """\
import adept

session = adept.load({place})
session.answer({row})
"""

PUSHED_USE = """\
import adept, huggingface_hub

session = adept.load(huggingface_hub.snapshot_download({place}))
session.answer({row})
"""


def folder_form(folder: Path) -> Form:
    """Whose folder it is. Raises UserError for one that holds no adapter and no model."""
    for form, name in (("adept", DESCRIPTION), ("peft", "adapter_config.json"), ("plain", "config.json")):
        if (folder / name).is_file():
            return form
    raise UserError(
        f"{folder} is neither an adapter folder ({WEIGHTS}) nor an exported one: it lacks {DESCRIPTION}, "
        "adapter_config.json and config.json"
    )


def write_card(
    folder: Path, config: RunConfig, record: Mapping[str, Any] | None, *, license: str | None = None
) -> Path:
    """Writes model_card() as README.md of the folder, and returns its path. An exporter's README.md becomes part of
    it.
    """
    write_atomically(folder / CARD, model_card(folder, config, record, license=license))
    return folder / CARD


def model_card(
    folder: Path,
    config: RunConfig,
    record: Mapping[str, Any] | None,
    *,
    license: str | None = None,
    repository: str | None = None,
) -> str:
    """The text of README.md: the hub's YAML head, then base, use, results, settings and limits.

    config: of the run. record: of the run; without one the card says no score. license: an id such as "apache-2.0".
    repository: OWNER/NAME on the hub, which the lines of use then name.

    A README.md that is in the folder tells its use, and stays as it is where it has a head. No number is in the card
    that the record does not hold or give: the interval is Wilson's of a share of the test rows.
    """
    written = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else None
    if written is not None and written.startswith("---\n"):
        return written
    card = Card(folder, folder_form(folder), config, task_of(config), record, license, repository)
    parts = [card.head(), *(card.opening() if written is None else [card.exported_text(written)]), *card.report()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


@dataclass(frozen=True)
class Card:
    """What a card is made of. Each method returns parts of its text."""

    folder: Path
    form: Form
    config: RunConfig
    task: Task
    record: Mapping[str, Any] | None
    license: str | None
    repository: str | None

    @functools.cached_property
    def work(self) -> str | None:
        """What the hub calls the model's work."""
        return pipeline_tag(self.config.model)

    @property
    def name(self) -> str:
        return self.repository.rpartition("/")[2] if self.repository else self.config.run_id

    @property
    def base_name(self) -> str:
        """The base model's hub id, or the name of the folder that it was in."""
        return hub_model(self.config.model) or Path(self.config.model).name

    @property
    def dataset(self) -> str | None:
        """The hub id of the data, where the record says that they came from there."""
        origin = str((self.record or {}).get("provenance", {}).get("data_origin"))
        return self.task.hub[0] if self.task.hub and origin.startswith("hub:") else None

    def head(self) -> str:
        """The YAML block between two lines of dashes."""
        from huggingface_hub import EvalResult, ModelCardData

        results = [
            EvalResult(
                task_type=self.work or "text-generation", dataset_type=self.dataset or self.task.name,
                dataset_name=self.task.name, dataset_config=self.task.hub[1] if self.dataset else None,
                metric_type=metric, metric_value=value,
            )
            for metric, value in ((self.record or {}).get("test") or {}).items()
        ]  # fmt: skip
        base = hub_model(self.config.model)
        data = ModelCardData(
            base_model=base, base_model_relation=RELATION[self.form] if base else None,
            library_name=LIBRARY[self.form], pipeline_tag=self.work, datasets=self.dataset, license=self.license,
            tags=["adept", "parameter-efficient-fine-tuning", self.config.method, self.task.name],
            model_name=self.name if results else None, eval_results=results or None,
        )  # fmt: skip
        return f"---\n{data.to_yaml()}\n---"

    def opening(self) -> Iterator[str]:
        """Title, base model and five lines of use."""
        yield f"# {self.config.method} on {self.task.name}"
        yield f"{self.base_name}, adapted by method {self.config.method}."
        yield f"```python\n{self.use()}```"

    def exported_text(self, written: str) -> str:
        """An exporter's README.md, whose lines of use name the repository where there is one."""
        return written.replace(json.dumps(self.folder.name), json.dumps(self.repository or self.folder.name))

    def use(self) -> str:
        """Python code that answers one source."""
        example, place = self.example(), json.dumps(self.repository or self.folder.name)
        columns = {key: value for key, value in (example or {}).items() if key != self.task.label}
        source = repr(self.task.source(example) if example else "...")
        if self.form == "adept":
            return (PUSHED_USE if self.repository else OWN_USE).format(
                place=place, row=columns if example and self.task.expand is None else source
            )
        causal = self.work == "text-generation"
        return (PLAIN_USE if self.form == "plain" else PEFT_USE).format(
            place=place, source=source, base=json.dumps(self.base_name),
            kind="AutoModelForCausalLM" if causal else "AutoModelForSeq2SeqLM",
        )  # fmt: skip

    def example(self) -> Row | None:
        """A row of the task as its data set has them; None for a task of the user's own."""
        known = self.config.task_file is None and (FIXTURE_FOLDER / f"{self.task.name}.jsonl").is_file()
        return fixture_rows(self.task.name)[0] if known else None

    def report(self) -> Iterator[str]:
        """Text, results, settings and limits, below their headings."""
        if example := self.example():
            piece = next(iter(self.task.expand(example))) if self.task.expand else example
            if not self.task.runs_code:
                texts = f"{self.task.source(piece)}\n\n{self.task.answer(piece)[0]}"
                yield f"A source, and the answer that it should have:\n\n```text\n{texts}\n```"
        yield from self.results()
        own = [*self.config.method_options.own_options(), *self.config.task_options.own_options()]
        rows = [(option, self.config.get(option)) for option in (*own, *SHOWN_SETTINGS)]
        lines = [f"| {option} | {value} |" for option, value in rows if value is not None]
        yield "\n".join(["## Settings", "", "| option | value |", "|---|---|", *lines])
        yield "\n".join(["## Limits", "", *(f"* {limit}" for limit in self.limits())])

    def results(self) -> Iterator[str]:
        """The scores of the record; nothing where there is no record."""
        if not (record := self.record):
            return
        lines = [f"| {metric} | {self.score(metric, value)} |" for metric, value in record["test"].items()]
        count = record.get("sizes", {}).get("test")
        rows = f"{count:,} test rows" if count is not None else "the test rows"
        origin = record.get("provenance", {}).get("data_origin")
        parts = [
            f"Percent on {rows} of {self.task.name}" + (f" ({origin}; {self.task.split.value})." if origin else "."),
            f"{record['trainable_params']:,} trained parameters; the weights are those of step {record['best_step']} "
            f"of {self.config.steps}.",
        ]
        yield "\n".join(["## Results", "", " ".join(parts), "", "| metric | test |", "|---|---|", *lines])

    def score(self, metric: str, value: float) -> str:
        """A score with its interval, where the record gives one."""
        count = self.record.get("sizes", {}).get("test")
        if metric not in SHARES_OF_ROWS or self.task.group is not None or not count:
            return f"{value:.1f}"
        from scipy.stats import binomtest

        interval = binomtest(round(count * value / 100), count).proportion_ci(method="wilson")
        return f"{value:.1f} (95% {100 * interval.low:.1f} to {100 * interval.high:.1f})"

    def limits(self) -> Iterator[str]:
        """What a reader must not take for granted."""
        if self.record:
            yield f"One run with seed {self.config.seed}: an interval is of the test rows, not of other seeds."
        yield f"Sources are cut to {self.config.max_source_len} tokens."
        if self.config.scoring == "likelihood":
            yield "The score is by the likelihood of the labels; generated answers may differ."
        elif self.task.labels is not None:
            yield "Answers are generated, so they may be no label."
        else:
            longest = (self.config.max_target_len or FREE_TEXT_LEN) - 1
            yield f"Answers are generated, and have at most {self.config.max_new_tokens or longest} tokens."
        if self.config.model == BUNDLED:
            yield "The base was converted from a 4-bit file, so its weights are not exactly those that the hub has."
        elif hub_model(self.config.model) is None:
            yield "The base model was a local folder, which is not on the hub under this name."
        for note in (self.record or {}).get("notes", ()):
            yield f"{note[:1].upper()}{note[1:]}."
