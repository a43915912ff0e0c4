"""The training loop: batches in, a run directory out. It knows no architecture and no data format.

Choices a reader may question. Every step seeds the generators from (seed, step, rank), so there is
no generator state to save and a resumed run repeats an uninterrupted one bit for bit. The loss is
the sum over targets divided by the number of targets over all ranks and micro-batches, so
accumulation and ranks change nothing; extra loss terms are averaged with the same weights. Weights
are only ever updated after loss and gradient norm were found finite, so a diverged run's last state
is still a good one. `train.max_minutes` counts evaluation too, on the clock `train.clock` names;
CPU time is logged whatever the clock, for it says what a run costs where a machine is shared.
"""

import hashlib
import math
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from bytelm.data.batch import Batch
from bytelm.errors import RecipeError, TrainingError
from bytelm.memory import keep_freed_memory
from bytelm.recipe import Recipe
from bytelm.run import WEIGHTS, Run
from bytelm.training import banner
from bytelm.training.alarms import Alarms
from bytelm.training.build import (
    arguments_of,
    as_recipe,
    build_model,
    build_objective,
    describe,
    open_corpora,
    parts_of,
)
from bytelm.training.checkpoint import (
    Position,
    gather_weights,
    latest_checkpoint,
    prune,
    read_position,
    restore_tensors,
    save_checkpoint,
)
from bytelm.training.choices import choose
from bytelm.training.claim import check_resumable, claimed_run
from bytelm.training.data import TrainingData
from bytelm.training.display import Display, spelled
from bytelm.training.distributed import Ranks, joined_ranks, set_threads, whole, wrap
from bytelm.training.evaluation import measure_heldout
from bytelm.training.metrics import Metrics
from bytelm.training.optimizer import Optimizers
from bytelm.training.origin import begin_with
from bytelm.training.precision import DTYPES
from bytelm.training.profile import Profile
from bytelm.training.schedule import Done, lr_factor, progress, reached_limit
from bytelm.training.signals import StopSignals
from bytelm.training.step import StepResult, forward_backward
from bytelm.training.trackers import Trackers, require_trackers


def train(
    recipe: Recipe | str | Path,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
) -> Path:
    """Train a recipe (name, path or `Recipe`); -> the run directory.

    run_dir    where to write; default: runs/NAME, or the first free runs/NAME-2, -3, ...
    resume     start from the last checkpoint in the run directory, if there is one
    overrides  "section.key=value" changes to the recipe
    """
    recipe = as_recipe(recipe, overrides=overrides)
    require_trackers(recipe.log.trackers)
    set_threads(recipe.train.threads)
    keep_freed_memory()
    with ExitStack() as stack:
        ranks = stack.enter_context(
            joined_ranks(device=recipe.train.device, timeout_minutes=recipe.train.timeout_minutes)
        )
        path = Path(run_dir) if run_dir is not None else None
        run = stack.enter_context(claimed_run(recipe, ranks, path=path, resume=resume))
        trainer = Trainer(recipe, run, ranks)
        stack.callback(trainer.close)
        signals = stack.enter_context(StopSignals(silent=not ranks.first))
        if stopped_by := trainer.run_to_end(signals):
            raise SystemExit(128 + stopped_by)
    return run.path


class Trainer:
    """One run in progress. `run_to_end` is the whole loop."""

    def __init__(self, recipe: Recipe, run: Run, ranks: Ranks):
        self._now = time.process_time if recipe.train.clock == "cpu" else time.monotonic
        began, began_cpu = self._now(), time.process_time()
        self.recipe, self.run, self.ranks = recipe, run, ranks
        corpora = open_corpora(recipe)
        self.objective = build_objective(recipe, corpora)
        parts = parts_of(recipe, run, begun=latest_checkpoint(run.checkpoints) is not None)
        arguments = arguments_of(self.objective, parts)
        if run.exists:
            check_resumable(recipe, run, self.objective.vocab, arguments)
        self.data = TrainingData(
            corpora,
            self.objective,
            data=recipe.data,
            train=recipe.train,
            seed=recipe.seed,
            rank=ranks.rank,
            world=ranks.world,
        )
        self.heldout = self.data.heldout if recipe.evaluate.every else None
        self.model = build_model(recipe, self.objective, parts).to(ranks.device)
        if ranks.first:
            files = self.objective.files()
            description = describe(recipe, self.model, self.objective, arguments)
            run.begin(recipe, description, files=files)
        ranks.wait()
        self.display = Display(silent=not ranks.first)
        self._restore()
        for line in banner.opening(
            recipe, run, model=self.model, data=self.data, dtype=self._how(), ranks=ranks
        ):
            self.display.message(line)
        self.alarms = Alarms.from_dict(self.position.alarms)
        step = self.position.step
        self.metrics = None
        if ranks.first:
            self.metrics = Metrics(run.metrics, step=step, evaluated=self.position.evaluated)
        self.trackers = Trackers(
            recipe.log.trackers if ranks.first else (),
            run.path,
            recipe.to_dict(),
            step=step,
            warn=self.display.message,
        )
        self.profile = Profile(run.profile, steps=recipe.log.profile_steps if ranks.first else None)
        if self.measured:
            self._write(decided=self._how())
        self.saved = (step, self.position.evaluated) if step else None  # even untrained, in the end
        self.unlogged: dict[str, float] | None = None  # the row of the last step, if not written
        self.clock = began - self.position.seconds  # when the run would have begun
        self.cpu_clock = began_cpu - self.position.cpu_seconds

    def _restore(self) -> None:
        """Model, optimizers and position: from the newest checkpoint, or fresh."""
        checkpoint = self.ranks.broadcast(latest_checkpoint(self.run.checkpoints))
        self.measured = ""
        if checkpoint is None:
            for line in begin_with(self.model, self.recipe.model.origin):
                self.display.message(line)
            chosen = choose(self.recipe.train, self.model, self.ranks, self._trial)
            self.position = Position(dtype=chosen.dtype, compile=chosen.compile, data=None)
            self.measured = chosen.measured
        else:
            self.position = read_position(checkpoint)
        self._check_heldout()
        self.wrapped = wrap(self.model, self.recipe.train.distributed, self.ranks)
        self.optimizers = Optimizers(
            self.model, self.recipe.optimizer, muon_dtype=DTYPES[self.position.dtype]
        )
        if checkpoint is not None:
            restore_tensors(checkpoint, model=self.model, optimizers=self.optimizers)
            if self.ranks.first:  # a kill may have come between the checkpoint and this
                self.run.publish(checkpoint / WEIGHTS)
            self.display.message(f"resuming {self.run.path} after step {self.position.step}")
            if self.position.compile:
                self.model.compile()

    def _check_heldout(self) -> None:
        """Figures before and after a pause must be of the same data, wherever it is by now."""
        now = None if self.heldout is None else self.heldout.fingerprint
        if now is not None and self.position.heldout not in (None, now):
            raise RecipeError(
                f"the held-out data is not what {self.run.path} was begun with: restore it, or "
                "start a new run"
            )
        self.position.heldout = now or self.position.heldout

    def _trial(self, dtype: str) -> None:
        """One row of the data forward and backward, which leaves nothing behind."""
        batch, _ = next(self.data.batches())
        row, alone = batch.split(len(batch.ids))[0], Ranks(self.ranks.device)
        forward_backward(
            self.model, row, objective=self.objective, parts=1, dtype=dtype, ranks=alone
        )
        self.model.zero_grad(set_to_none=True)

    def _how(self) -> str:
        """Number format and compilation, and what that was decided by."""
        how = self.position.dtype + (", compiled" if self.position.compile else "")
        return f"{how} (measured: {self.measured})" if self.measured else how

    def run_to_end(self, signals: StopSignals) -> int | None:
        """Train until a limit or a signal; -> the signal's number, if one came to any rank."""
        batches = self.data.batches(self.position.data)
        while (limit := self._limit()) is None and not self._stopping(signals):
            done = progress(self._so_far(), self.recipe.train)
            batch, self.position.data = next(batches)
            with self.profile.step(self.position.step + 1):
                self._step(self.data.with_row_length(batch, done), done)
            if self._due(self.recipe.evaluate.every):
                self.evaluate()
            if self._due(self.recipe.train.checkpoint_every):
                self.save()
        if limit is not None:
            if self.unlogged is not None:
                self._write(**self.unlogged)
            self.evaluate()
        self.save()
        step = self.position.step
        if limit is not None:
            self.display.message(f"trained {step:,} steps: {limit} is reached")
            if (done := progress(self._so_far(), self.recipe.train)) < 1:
                self.display.message(banner.unfinished(limit, done=done))
            return None
        number = signals.received or signal.SIGTERM
        self.display.message(banner.stopped(self.run, step=step, number=number))
        return number

    def _limit(self) -> str | None:
        """The limit that is reached, as the recipe writes it; the same on every rank."""
        self.position.seconds = self.ranks.broadcast(self._now() - self.clock)
        self.position.cpu_seconds = time.process_time() - self.cpu_clock
        return reached_limit(self._so_far(), self.recipe.train)

    def _so_far(self) -> Done:
        position = self.position
        return Done(steps=position.step, bytes=position.bytes_seen, seconds=position.seconds)

    def _stopping(self, signals: StopSignals) -> bool:
        """Whether any rank was told to stop."""
        return self.ranks.total([float(signals.received is not None)])[0] > 0

    def _step(self, batch: Batch, done: float) -> None:
        recipe, position = self.recipe, self.position
        began = time.monotonic()
        torch.manual_seed(_step_seed(recipe.seed, position.step, self.ranks.rank))
        self.model.train()
        self.model.progress(done)
        result = forward_backward(
            self.wrapped,
            batch,
            objective=self.objective,
            parts=recipe.train.accumulate,
            dtype=position.dtype,
            ranks=self.ranks,
        )
        norm = self._clip()
        if not (math.isfinite(result.total_loss) and math.isfinite(norm)):
            good = latest_checkpoint(self.run.checkpoints)
            raise TrainingError(
                banner.diverged(
                    position.step + 1, loss=result.total_loss, norm=norm, checkpoint=good
                )
            )
        factor = lr_factor(recipe.schedule, step=position.step, done=done)
        telemetry = self._telemetry() if self._logged(position.step + 1) else {}
        self.optimizers.step(factor)
        self.model.after_step(result.stats)
        position.step += 1
        position.bytes_seen += result.raw_bytes
        self._report(result, norm, factor, telemetry, time.monotonic() - began, done)

    def _clip(self) -> float:
        """Scale the gradients to the recipe's norm; -> their norm before."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = whole(nn.utils.get_total_norm(gradients))
        if clip := self.recipe.optimizer.clip:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), clip, norm)
        return float(norm)

    def _telemetry(self) -> dict[str, float]:
        """Gradient norms (after clipping) by parameter kind."""
        if not self.recipe.log.telemetry:
            return {}
        kinds: dict[str, list[Tensor]] = {}
        for name, p in self.model.named_parameters():
            if p.grad is not None:
                kinds.setdefault(self.model.parameter_role(name, p).kind, []).append(p.grad)
        return {
            f"grad_norm/{kind}": float(whole(nn.utils.get_total_norm(gradients)))
            for kind, gradients in kinds.items()
        }

    def _report(self, result: StepResult, norm, factor, telemetry, seconds, done) -> None:
        """Metrics row, display and alarms after a step."""
        position, recipe = self.position, self.recipe
        figures = self.objective.figures(result.sums)
        speed = result.raw_bytes / seconds
        self.display.update(
            step=position.step,
            done=done,
            headline=next(iter(figures.items())),
            speed=speed,
            seconds=position.seconds,
        )
        assert position.data is not None, "a batch was drawn"
        row = {
            **figures,
            "bytes_seen": position.bytes_seen,
            "samples": position.data["samples"],
            "bytes_per_second": speed,
            "seconds": position.seconds,
            "cpu_seconds": position.cpu_seconds,
            "lr": recipe.optimizer.lr * factor,
            "grad_norm": norm,
            **(result.stats if recipe.log.telemetry else {}),
            **telemetry,
        }
        if not self._logged(position.step):
            self.unlogged = row  # written if this turns out to be the last step
            return
        self.unlogged = None
        self._write(**row)
        for alarm in self.alarms.check(position.step, self.model.symptoms(result.stats)):
            self._write(alarm=alarm)
            self.display.message(f"warning, step {position.step}: {alarm}")

    def evaluate(self) -> None:
        """Held-out figures now; nothing without held-out data or if just done."""
        recipe, position = self.recipe, self.position
        if self.heldout is None or position.evaluated == position.step:
            return
        judge = self.data.heldout_objective
        sums = measure_heldout(
            self.wrapped,
            self.heldout,
            judge,
            limit=recipe.evaluate.bytes,
            rows=max(1, recipe.train.batch_windows // recipe.train.accumulate // self.ranks.world),
            dtype=position.dtype,
            ranks=self.ranks,
            on_progress=self.display.evaluating,
        )
        position.evaluated = position.step
        figures = judge.figures(sums)
        self._write(**{f"heldout_{name}": value for name, value in figures.items()})
        name, value = next(iter(figures.items()))
        self.display.message(f"step {position.step}: {value:.4f} {spelled(name)} held out")
        if position.best is None or judge.is_better(value, position.best):
            position.best = value
            weights = gather_weights(self.model, self.ranks)
            if self.ranks.first:
                self.run.publish_best(weights)

    def save(self) -> None:
        """Write a checkpoint of this moment and make it the run's model; nothing if just done."""
        if self.saved == (self.position.step, self.position.evaluated):
            return
        self.position.alarms = self.alarms.to_dict()
        if self.metrics is not None:
            self.metrics.flush()
        path = save_checkpoint(
            self.run.checkpoints,
            model=self.model,
            optimizers=self.optimizers,
            position=self.position,
            ranks=self.ranks,
        )
        if self.ranks.first:
            self.run.publish(path / WEIGHTS)
            prune(self.run.checkpoints, keep=self.recipe.train.keep_last)
        self.saved = (self.position.step, self.position.evaluated)
        self.ranks.wait()

    def close(self) -> None:
        """Let go of files, trackers, the terminal and what stands between the ranks' models."""
        self.wrapped = self.model
        self.profile.close()
        self.trackers.close()
        self.display.close()
        if self.metrics is not None:
            self.metrics.close()

    def _write(self, **values: float | str) -> None:
        row = {"step": self.position.step, **values}
        if self.metrics is not None:
            self.metrics.write(row)
        self.trackers.write(row)

    def _due(self, every: int) -> bool:
        """Whether something done every so many steps is due now."""
        return every > 0 and self.position.step % every == 0

    def _logged(self, step: int) -> bool:
        """Whether a step has a row: every so many, and the last."""
        return step % self.recipe.log.every == 0 or step == self.recipe.train.steps


def _step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of every generator during one step of one rank."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
