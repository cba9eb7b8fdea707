"""Connecting a command to Ray: the cluster it was submitted to, else one started on this machine."""

from __future__ import annotations

import logging
import os

_MIN_LOCAL_CPUS = 4  # logical ones: two cores can well share the pipeline's actors and Ray Data's own tasks


_QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "DEEPSPEED_LOG_LEVEL": "warning"}


def prepare() -> None:
    """Set what Ray reads on import: call it before anything imports Ray."""
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # a JVM may start in this process later


def connect() -> None:
    """Join `RAY_ADDRESS` (set by `ray job submit`), or start a local Ray; its libraries keep quiet."""
    prepare()
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    ray.init(
        address=address,
        num_cpus=None if address else max(_MIN_LOCAL_CPUS, os.cpu_count() or 1),
        logging_level=logging.WARNING,
        runtime_env={"env_vars": _QUIET},
    )
