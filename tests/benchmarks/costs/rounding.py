"""Figures as `costs.yaml` has them."""


def rounded(value: float) -> float:
    return float(f"{value:.3g}")
