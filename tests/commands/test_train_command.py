"""What `playground train` prints; what it does is in integration/."""

import pytest


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero2", "zero3"])
def test_launch_configs_are_printed_and_accelerate_reads_them(name, capsys, tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file

    from playground import cli

    cli.main(["train", "--launch-config", name])
    text = capsys.readouterr().out
    assert "not been run" in text
    (tmp_path / "it.yaml").write_text(text)
    read = load_config_from_file(str(tmp_path / "it.yaml"))
    kind = {"ddp": "MULTI_GPU", "fsdp": "FSDP"}.get(name, "DEEPSPEED")
    assert (read.distributed_type, read.num_processes) == (kind, 2)
    assert read.deepspeed_config.get("zero_stage") == {"zero2": 2, "zero3": 3}.get(name)


@pytest.mark.parametrize(
    "event, line",
    [
        (
            {"kind": "early_stop", "step": 9, "best_step": 3, "best_loss": 1.5, "waited": 3},
            "no better held-out loss in 3 evaluations: the best was 1.5000 at step 3",
        ),
        ({"kind": "scoring", "tuned": True, "done": 40, "of": 120}, "tuned: 40 of 120 answers"),
        (
            {"kind": "scores", "what": "exact calls", "summary": "untuned 0/8, tuned 8/8", "seconds": 2.0},
            "exact calls on held-out questions: untuned 0/8, tuned 8/8 (2 s)",
        ),
    ],
)
def test_events_as_lines(event, line):
    from playground.commands.train import event_line

    assert event_line(event) == line
