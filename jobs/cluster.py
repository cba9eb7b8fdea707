"""Connecting a command to Ray: the cluster it was submitted to, else one started on this machine."""

from __future__ import annotations

import logging
import os

from ctxner.batch.local_ray import ENVIRONMENT, free_port

_MIN_LOCAL_CPUS = 4  # logical ones: two cores can well share the pipeline's actors and Ray Data's own tasks
_QUIET = {
    **{name: value for name, value in ENVIRONMENT.items() if not name.startswith("RAY_")},
    "DEEPSPEED_LOG_LEVEL": "warning",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it prints the messages of progress bars as well, twice over
}
_QUIET_LOCALLY = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nothing preempts this machine; starting it logs a needless error
    "RAY_DEDUP_LOGS_SKIP_REGEX": "maximum expected startup concurrency",  # more actors than cores are meant here
}


def prepare() -> dict[str, str]:
    """Set what Ray reads when it is imported: call it before anything imports Ray.

    Returns:
        The variables for Ray's workers.
    """
    variables = _QUIET if os.environ.get("RAY_ADDRESS") else _QUIET | _QUIET_LOCALLY
    for name, value in (ENVIRONMENT | variables).items():
        os.environ.setdefault(name, value)
    return variables


def connect() -> None:
    """Join `RAY_ADDRESS` (set by `ray job submit`), or start a local Ray.

    Its libraries keep quiet: warnings and errors are shown, what Ray reports of its own work is in its log files.
    """
    variables, address = prepare(), os.environ.get("RAY_ADDRESS")
    import ray

    if ray.is_initialized():
        return
    _quiet_driver()
    if address:
        ray.init(address=address, logging_level=logging.WARNING, runtime_env={"env_vars": variables})
        return
    # Ray Train ends a run whose controller it cannot find, and with several Rays on a machine it may ask another one.
    port = free_port()
    ray.init(
        address="local",  # else Ray joins, or fails to join, whatever else runs on this machine
        num_cpus=max(_MIN_LOCAL_CPUS, os.cpu_count() or 1),
        dashboard_port=port,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": {**variables, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"}},
    )


def _quiet_driver() -> None:
    """Ray's loggers in this process, without what it says at every start."""
    import ray.data  # noqa: F401 (it configures its logger when it is imported)

    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # not its log file
            handler.setLevel(logging.WARNING)
    for name in ("ray._private.authentication", "ray.data._internal.progress"):  # a default of Ray's, a choice of ours
        logging.getLogger(name).setLevel(logging.ERROR)
