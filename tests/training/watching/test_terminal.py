import io
import sys

from tfmmcl.training.checkpoints import Position
from tfmmcl.training.watching import terminal
from tfmmcl.training.watching.terminal import Progress

STEP = {"loss": 1.2345, "contrastive_accuracy": 0.5}
EPOCH = {**STEP, "val_loss": 2.0, "val_contrastive_accuracy": 0.25, "seconds": 30.0, "trajectories_per_second": 12.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def follow(progress, epoch, steps):
    progress.on_epoch_begin(epoch)
    for batch in range(steps):
        progress.on_train_batch_end(batch, STEP)


def test_a_terminal_has_a_bar_with_loss_accuracy_rate_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    progress = Progress(2, 4, 8)
    follow(progress, 0, 3)
    progress._bar.refresh()
    shown = screen.getvalue().split("\r")[-1]
    assert shown.startswith("epoch 1/2  75% |")
    assert "loss 1.234, accuracy 50.0%, " in shown
    assert "trajectories/s, 00:0" in shown
    assert "left" in shown
    progress.on_epoch_end(0, EPOCH)
    assert capsys.readouterr().out == (
        "epoch 1/2, loss 1.234, validation 2.000, accuracy 25.0%, 12.0 trajectories/s, 00:30 left\n"
    )


def test_elsewhere_there_are_plain_lines(monkeypatch, capsys):
    progress = Progress(3, 4, 8)
    follow(progress, 2, 4)
    progress.on_epoch_end(2, {**EPOCH, "input_wait_share": 0.4, "val_linear_probe_auroc": 0.8})
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == (
        "epoch 3/3, loss 1.234, validation 2.000, accuracy 25.0%, probe's AUROC 0.80, 12.0 trajectories/s, "
        "40% of the time waiting for input\n"
    )


def test_a_long_epoch_says_how_it_goes(monkeypatch, capsys):
    clock = iter(range(0, 1000, 50))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    progress = Progress(1, 10, 8, Position(epoch=0, step=5))
    follow(progress, 0, 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["epoch 1/1, step 7/10, loss 1.234, accuracy 50.0%, 0.1 trajectories/s, 03:45 left"]
