"""What the trainer process does with a run's folder, from waiting for the device to the truth check.

    here       the run's turn, its state and how it ended
    job        what all parts share, and the request to stop
    prepare    rows, model and template read and checked; the plan that is told before the first step
    stages     the training itself, in one stage or two, and the truth check
    keep       what is left: the score, the adapter (or model) and what playground.json says of it

Imported by that process alone: torch, transformers and peft are imported with `stages`, when the run's turn has come.
"""

import os
import traceback
from collections.abc import Callable

from playground.config import Paths
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.figures import Log
from playground.services.jobs import wait_for_device
from playground.services.runs import Events, Run
from playground.services.trainer.job import Job, Stop, StoppedEarly

# Threads that wait by spinning take the cores from whoever works on them (beside a busy browser on two cores, steps
# took 10 times as long); threads that never spin wake up late. So: spin for a moment (GNU OpenMP's count; ten times
# as many are a fifth quicker on a machine with nothing else to do). Must be set before torch is imported.
SPIN = "20000"


def train(run: Run, paths: Paths, sources, tell: Callable[[dict], None] = lambda event: None, ranks=None) -> dict:
    """Do the run and leave its end in the folder; `tell` gets every event as it is written.

    `ranks` (core.training.ranks): the processes that do it together; the first of them alone writes the folder.
    Returns {run, state, sentence, adapter (or model), steps, seconds, loss, eval_loss, best_step, peak_memory, truth,
    scores}.
    Faults of ours are written as a failed state too, and raised.
    """
    first = ranks is None or ranks.first
    if first:
        runs.note_process(run.folder)
    log = Events(run.folder)

    def emit(kind: str, **values) -> None:
        if first:
            event = log.write(kind, **values)
            tell(event)
            if figures:
                figures(event)

    config = run.config
    result = {"run": run.name, "adapter": None, "steps": 0, "seconds": 0.0, "loss": None, "eval_loss": None}
    job = Job(run, config, paths, sources, emit, Stop(run, lambda: job.state("stopping")), ranks)
    lock = figures = None
    try:
        with job.stop.signals():
            if first:
                runs.reserve(run.folder)
                lock = wait_for_device(run, paths, job.stop, lambda n: emit("queue", before=n))
            if not _all_of(ranks, lambda: lock is not None):
                raise StoppedEarly
            job.state("preparing")
            figures = Log(config.log_to, run.folder)
            os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
            from playground.services.trainer.stages import do

            result |= do(job)
    except StoppedEarly:
        job.state("stopped", "stopped before the first step; there is nothing to keep")
    except BaseException as error:
        if not first:  # the first process says what became of the run; the log has what happened here
            raise
        _last_words(job, error)
        if not isinstance(error, PlaygroundError) and run.status.reason == "fault":
            raise
    finally:
        if first:
            runs.free_reserve(run.folder)
        if figures:
            figures.close()
        if lock is not None:
            lock.release()
    if first:
        runs.write_card(run)
    status = run.status
    return {**result, "state": status.state, "sentence": status.sentence}


def _all_of(ranks, work: Callable):
    """What `work` returns in the first process, for all of them."""
    return work() if ranks is None else ranks.from_first(work)


def _last_words(job: Job, error: BaseException) -> None:
    """Put the reason of a failure into the folder, in one sentence."""
    runs.free_reserve(job.run.folder)
    if isinstance(error, KeyboardInterrupt):
        job.state("stopped", "stopped at once; what was not in a checkpoint is lost", "interrupted")
        return
    from playground.core.training.loop import failure

    reason, sentence = failure(error, job.config) or ("fault", f"{type(error).__name__}: {error}; log.txt has the rest")
    if reason == "fault":
        traceback.print_exc()
    job.state("failed", sentence, reason)
