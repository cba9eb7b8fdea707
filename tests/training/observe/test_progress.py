"""The line of an epoch has what one waits for, in the units that one thinks in."""

from __future__ import annotations

import psutil
import torch

from ctxner.training.observe.progress import epoch_line, peak_memory


def test_an_epoch_is_one_line_with_losses_scores_speed_memory_and_time_left() -> None:
    entry = {
        "epoch": 2,
        "losses": {"loss": 1.57401, "nll": 0.81, "cl-kl": 0.0002741},
        "dev_f1": {"plain": 0.5463, "context": 1.0},
        "seconds": 36.0,
        "seconds_by_phase": {"forward": 9.0, "backward": 26.0, "evaluation": 5.0},
        "sentences_per_second": 11.14,
    }
    assert epoch_line(entry, 4, 126.0, num_bytes=3 * 2**29) == (
        "epoch 2/4 | loss 1.57 nll 0.81 cl-kl 0.000274 | dev F1 plain 54.6 context 100.0 | "
        "11.1 sentences/s | forward 22% backward 65% evaluation 12% | 1.5 GiB | 2.1 min left"
    )


def test_peak_memory_of_a_cpu_worker_is_in_bytes() -> None:
    now = psutil.Process().memory_info().rss
    assert 0.9 * now <= peak_memory(torch.device("cpu")) < psutil.virtual_memory().total
