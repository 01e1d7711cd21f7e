"""One run, from its claim to its written record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

from adept.base import distributed
from adept.base.console import print_status
from adept.config.run import RunConfig, task_of
from adept.data.batches import training_batches
from adept.data.codec import Codec
from adept.data.dataset import Data, encode_data, load_data
from adept.data.truncation import percent, unreachable_answers
from adept.metrics.sandbox.caller import require_protection
from adept.runs.adapter import assign_weights, save_adapter, snapshot
from adept.runs.claim import claim_run
from adept.runs.comparison import require_same_run
from adept.runs.layout import run_folder
from adept.runs.predictions import write_predictions
from adept.runs.record import finished_record, read_record, write_record
from adept.runs.tracking.tracker import make_tracker
from adept.training.clock import TrainingClock
from adept.training.evaluation import compare_scoring, evaluate, max_new_tokens, repeat_for_samples
from adept.training.memory import (
    OutOfMemoryInEvaluation,
    evaluation_remedies,
    loading_remedies,
    peak_memory,
    report_out_of_memory,
    reset_peak_memory,
    training_remedies,
)
from adept.training.offset_statistics import offset_statistics
from adept.training.optim import make_optimizer, parameter_groups, schedule
from adept.training.resume import Checkpoints
from adept.training.run_record import make_record
from adept.training.session import Session, require_code_permission
from adept.training.signals import Interrupted, Signals
from adept.training.start import start_parameters
from adept.training.step import StepInput, StepResult, next_step_input

StoppingRule = Callable[[int, list[dict]], bool]
"""Called with (step, history) after each evaluation but the last. True: the run stops and is left unfinished."""


class EarlyStopped(Exception):
    """A stopping rule ended the run. Its training is saved."""


class SharedData:
    """Data of runs that are trained together, loaded and tokenised once.

    Such runs have equal data, except that --few_shot draws other rows for another --seed.
    """

    def __init__(self):
        self.loaded: dict[int | None, Data] = {}
        self.encoded: dict[int | None, Data] = {}
        self.reported: set[int | None] = set()

    @staticmethod
    def draw(config: RunConfig) -> int | None:
        """The seed of the rows that --few_shot draws, None where it draws none."""
        return config.seed if config.few_shot else None

    def load(self, config: RunConfig) -> Data:
        """The run's three splits as text."""
        if (key := self.draw(config)) not in self.loaded:
            self.loaded[key] = load_data(task_of(config), config)
        return self.loaded[key]

    def encode(self, config: RunConfig, codec: Codec) -> Data:
        """The run's three splits as token ids."""
        if (key := self.draw(config)) not in self.encoded:
            self.encoded[key] = encode_data(self.load(config), codec)
        return self.encoded[key]

    def report_truncation(self, config: RunConfig) -> None:
        """Prints how much the length limits cut, once for all runs with these rows."""
        if (key := self.draw(config)) not in self.reported:
            self.reported.add(key)
            print_status(f"{config.task}: {self.encoded[key].truncation.line()}")


class Run:
    """One run: its claim, data, session, optimizer, progress, checkpoints and display.

    The loop calls claim(); then prepare(session), unless the run is finished; then after_step() with the result of the
    step on `step_input`, until the run is finished. `record` is then set. Each of them may raise; the loop then calls
    end(error), which saves the training where it is complete and releases the claim.
    """

    def __init__(
        self, config: RunConfig, signals: Signals, shared: SharedData, should_stop: StoppingRule | None = None
    ):
        self.config, self.task = config, task_of(config)
        self.signals, self.shared, self.should_stop = signals, shared, should_stop
        self.resources = contextlib.ExitStack()  # the claim, and in it `display`
        self.display = contextlib.ExitStack()  # the tracker and the thread that makes batches
        self.folder = run_folder(config.results_dir, config.run_id)
        self.record: dict | None = None
        self.checkpoints: Checkpoints | None = None  # set when the training can be saved
        self.step_input: StepInput | None = None

    # From the claim to the first step

    def claim(self) -> None:
        """Claims the run for this process and loads its rows; or reads the record where the run is finished.

        Raises RunClaimed when another process has the run, UserError for data that cannot be read.
        """
        results_dir, run_id = self.config.results_dir, self.config.run_id
        self.record = distributed.on_main_process(lambda: self.same_run(finished_record(results_dir, run_id)))
        if self.record is not None:
            return
        self.resources.enter_context(distributed.enter_on_main_process(claim_run(results_dir, run_id)))
        # Another process may have finished it between the look and the claim.
        self.record = distributed.on_main_process(lambda: self.same_run(read_record(results_dir, run_id)))
        if self.record is not None:
            self.resources.close()
            return
        require_code_permission(self.config, self.task)
        with self.signals.interrupt_at_once(), report_out_of_memory(loading_remedies(self.config)):
            self.protection = require_protection() if self.task.runs_code else None
            self.shared.load(self.config)

    def same_run(self, record: dict | None) -> dict | None:
        """The record. Raises UserError where it is not of the run that is asked for."""
        if record is not None:
            require_same_run(self.config, record)
        return record

    def prepare(self, session: Session, clock: TrainingClock) -> None:
        """Makes optimizer and tracker, restores the last checkpoint if there is one, and goes on to the next step.

        clock: of all runs that are trained together.
        """
        config = self.config
        self.session, self.device, self.clock = session, session.device, clock
        with self.signals.interrupt_at_once():
            self.data = self.shared.encode(config, session.codec)
            self.report_unreachable_answers()
        groups = parameter_groups(session.model, session.method.learning_rates())
        self.groups = {
            group["name"]: {"lr": group["lr"], "params": sum(p.numel() for p in group["params"])} for group in groups
        }
        self.optimizer = make_optimizer(groups, config) if groups else None
        self.multiplier = schedule(config)
        checkpoints = Checkpoints(self.folder, session, self.optimizer, self.data.fingerprint)
        if distributed.RANK:
            torch.manual_seed(distributed.rank_seed(config.seed))  # dropout: other rows, other masks
        self.state = checkpoints.load()
        self.earlier_seconds = self.state.train_seconds
        if not self.state.step:
            with self.signals.interrupt_at_once(), report_out_of_memory(training_remedies(config)):
                start_parameters(session, self.data.train)
        self.shared.report_truncation(config)
        tracker = make_tracker(config, self.folder, self.groups, session.param_counts, self.state.step)
        self.resources.push(self.display)
        self.tracker = self.display.enter_context(tracker)
        self.checkpoints = checkpoints
        skip = self.state.step * config.grad_accum
        self.batches = training_batches(session.codec, self.data.train, config, skip=skip)
        self.display.callback(self.batches.close)
        self.measures_memory = reset_peak_memory(self.device)
        session.model.train()
        self.between_steps()

    def report_unreachable_answers(self) -> None:
        """Counts the evaluated rows whose answer is longer than what is generated, and prints their share, if any."""
        self.unreachable = 0
        if self.config.scoring == "generate" and not self.task.runs_code:
            evaluated, limit = [*self.data.validation, *self.data.test], max_new_tokens(self.session)
            self.unreachable = unreachable_answers(self.session.codec, evaluated, limit)
            if self.unreachable:
                share = percent(self.unreachable, len(evaluated))
                print_status(
                    f"{self.config.task}: the answers of {share} of the {len(evaluated):,} evaluated rows are longer "
                    f"than the {limit} tokens that are generated, so they count as wrong: --max_new_tokens raises this"
                )

    # Steps

    def after_step(self, result: StepResult) -> None:
        """Counts the step on `step_input`; then logs, evaluates, saves, stops or finishes where that is due."""
        state, batches = self.state, self.step_input.batches
        state.unread.append((state.step, result.loss, [name for batch in batches for name in batch.ids]))
        state.step += 1
        state.tokens += sum(batch.tokens for batch in batches)
        state.examples += sum(len(batch.ids) for batch in batches)
        state.stacked = max(state.stacked, result.runs)
        self.between_steps()

    def between_steps(self) -> None:
        """Does what is due after `state.step` steps, then finishes the run or makes the input of its next step.

        Raises Interrupted for a signal, EarlyStopped where the stopping rule says so.
        """
        config, state = self.config, self.state
        last = state.step == config.steps
        due = last or (state.step > 0 and state.step % config.eval_every == 0)
        if due or state.step % config.log_every == 0:
            self.log_losses()
        if due and not state.evaluated:
            self.validate()
            if self.should_stop is not None and not last and self.should_stop(state.step, state.history):
                raise EarlyStopped("stopped early")
        save, signal = distributed.all_reduce_max(self.checkpoints.due(state), self.signals.received or 0)
        if save:
            self.save_checkpoint()
        self.signals.check(signal)
        if last:
            self.finish()
        else:
            self.make_step_input()

    def make_step_input(self) -> None:
        """Waits for the next step's batches."""
        multiplier = self.multiplier(self.state.step)
        self.step_input = next_step_input(self.session, self.optimizer, self.batches, multiplier)

    def save_checkpoint(self) -> None:
        """Writes a checkpoint. Raises UserError when the disk refuses, or for a loss that is not finite."""
        with self.clock.paused():
            self.read_clock()
            self.state.read_losses(self.optimizer)
            self.checkpoints.save(self.state)

    def read_clock(self) -> None:
        """Enters the training time until the clock's last point into the state."""
        self.state.train_seconds = self.earlier_seconds + self.clock.seconds[self]

    def log_losses(self) -> None:
        """Shows the mean loss since the last call."""
        state = self.state
        state.read_losses(self.optimizer)
        if losses := state.losses[state.shown :]:
            rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
            self.tracker.step(state.step, sum(losses) / len(losses), rates)
            state.shown = len(state.losses)

    def validate(self) -> None:
        """Evaluates on the validation set and keeps the weights if they are the best so far.

        Where nothing validates (MBPP), the newest weights are the best.
        """
        state, select_on = self.state, self.config.select_on
        with self.evaluation():
            validation = evaluate(self.session, self.data.validation)[0] if self.data.validation else {}
        loss = sum(state.losses) / len(state.losses) if state.losses else None
        seconds = round(state.train_seconds + state.eval_seconds, 3)
        state.history.append({"step": state.step, "train_loss": loss, "validation": validation, "seconds": seconds})
        state.losses, state.shown = [], 0
        if not state.best or not validation or validation[select_on] > state.best["validation"][select_on]:
            state.best = {"step": state.step, "validation": validation, "weights": snapshot(self.session.trainables)}
        self.tracker.evaluated(state.history[-1], state.best)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Inside, a signal interrupts at once: an evaluation changes nothing of the training but the time it took."""
        out_of_memory = report_out_of_memory(evaluation_remedies(self.config), OutOfMemoryInEvaluation)
        with self.clock.paused(), self.signals.interrupt_at_once(), out_of_memory:
            self.read_clock()
            started = time.perf_counter()
            yield
            self.state.eval_seconds += time.perf_counter() - started

    # The end

    def finish(self) -> None:
        """Tests the best weights and writes adapter, predictions and record."""
        assign_weights(self.session.trainables, self.state.best["weights"])
        with self.evaluation():
            started = time.perf_counter()
            test, predictions = evaluate(self.session, self.data.test)
            seconds = time.perf_counter() - started
            agreement = None
            if self.config.compare_scoring:
                agreement = compare_scoring(self.session, self.data.test, test, predictions)
        self.tracker.finish(self.state.best, test)
        self.display.close()
        timing = self.state.timing() | {"test_examples_per_second": len(predictions) / seconds}
        self.record = distributed.on_main_process(lambda: self.publish(test, predictions, timing, agreement))
        self.resources.close()

    def publish(self, test: dict, predictions: list[str], timing: dict, agreement: dict | None) -> dict:
        """Writes all that the run leaves behind, the record last. Returns the record."""
        record = make_record(self.session, self.data, self.groups, self.state, test, timing)
        if self.measures_memory:
            record["peak_memory_bytes"] = peak_memory(self.device)
        record["truncation"] |= {"unreachable_answers": self.unreachable}
        if self.state.resumed:
            record["provenance"]["resumed"] = self.state.resumed
        if self.state.stacked > 1:
            record["provenance"]["stacked"] = self.state.stacked
        if distributed.WORLD > 1:
            record["provenance"]["processes"] = distributed.WORLD
        if self.protection is not None:
            record["notes"].append(self.protection)
        if agreement is not None:
            record["scoring_agreement"] = agreement
        if self.config.measure_offsets:
            record["offsets"] = offset_statistics(self.session, self.data.train)
        save_adapter(
            self.folder, self.session.trainables, self.config, self.session.base_weights, self.session.made_prompt
        )
        tested = repeat_for_samples(self.task, self.data.test)
        write_predictions(self.folder / "predictions.jsonl", tested, predictions)
        write_record(self.config.results_dir, record)
        self.checkpoints.remove()
        return record

    def end(self, error: BaseException) -> BaseException:
        """Ends the run without a record: saves the training where it is complete, and releases the claim.

        Returns the error, whose text then names the step that is saved; or what saving raised.
        """
        try:
            self.save_training(error)
        except BaseException as failure:
            error = failure
        try:
            self.resources.__exit__(type(error), error, error.__traceback__)  # the tracker shows that the run failed
        except BaseException as failure:
            error = failure
        return error

    def save_training(self, error: BaseException) -> None:
        """Writes a checkpoint after an error that comes between two steps, when the training is complete.

        Raises UserError when the disk refuses, or for a loss that is not finite.
        """
        if self.checkpoints is None or not isinstance(error, (Interrupted, EarlyStopped, OutOfMemoryInEvaluation)):
            return
        self.save_checkpoint()
        if self.state.step:
            error.args = (f"{error} from step {self.state.step} of {self.config.steps}, which is saved",)
