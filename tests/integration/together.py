"""What each of the processes in test_processes does: runs with ranks, as a launcher would start them."""

import contextlib
import dataclasses
import os
import traceback
from pathlib import Path

from playground.config import Paths
from playground.errors import PlaygroundError
from playground.services import runs, trainer


class Sources:
    def __init__(self, folder):
        self.folder = folder

    def get(self, name, progress=None, cancel=None):
        return self.folder


def work(rank: int, port: int, home: str, model: str, names: list[tuple[str, bool, int]]) -> None:
    """The runs of these names, each sharded or not, stopped after a step (0: not); a fault goes to a file."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        import torch

        from playground.core.training import ranks as together

        torch.set_num_threads(1)
        ranks = together.join()
        for name, sharded, stop_after in names:
            run = runs.find(Paths(Path(home)), name)

            def tell(event, run=run, stop_after=stop_after):
                if event["kind"] == "step" and event["step"] == stop_after:
                    (run.folder / "stop").touch()

            mine = dataclasses.replace(ranks, sharded=sharded)
            with contextlib.suppress(PlaygroundError):  # of a run that is refused; its folder says so
                trainer.train(run, Paths(Path(home)), Sources(Path(model)), tell, mine)
            ranks.wait()
        together.leave(ranks)
    except BaseException:
        (Path(home) / f"fault-{rank}.txt").write_text(traceback.format_exc())
        raise
