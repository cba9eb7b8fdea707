"""Results of cells for tests of tables: made from counts, as a step would."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jobs.experiment.results import CellResult, Machine, StepFacts, ViewScores, dtype_for, pack

FACTS = StepFacts(
    key="0123",
    seconds=60.0,
    attempts=1,
    commit="abcdef0",
    machine=Machine(cpu="a processor", cores=2, isa="AVX2"),
    versions={"torch": "2"},
)


def result_of(
    coordinates: dict[str, str], counts: Mapping[str, np.ndarray], *, settings: str = "", study: str = "mine"
) -> CellResult:
    """A result of a cell of the study `mine`, with the counts of each view."""
    dtype = dtype_for(counts.values())
    totals = {view: tuple(int(number) for number in view_counts.sum(0)) for view, view_counts in counts.items()}
    scores = {
        view: ViewScores(
            all=totals[view],
            types={"person": totals[view]},
            groups={"seen": totals[view], "unseen": (0, 0, 0)},
            interval=(0.0, 1.0),
            packed=pack(view_counts, dtype),
        )
        for view, view_counts in counts.items()
    }
    number = len(next(iter(counts.values())))
    return CellResult(
        study=study,
        coordinates=coordinates,
        settings=settings,
        key="4567",
        seed=0,
        split="test",
        sentences=number,
        unit="sentence",
        num_units=number,
        unit_reason="the data name no documents",
        dtype=dtype,
        scores=scores,
        dev_f1={"plain": 0.5},
        best_epoch=1,
        steps={"train": FACTS},
    )
