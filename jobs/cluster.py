"""Connects a command to Ray: to the cluster that it was submitted to, else to a Ray started on this machine."""

from __future__ import annotations

import logging
import os

from ctxner.batch.local_ray import ENVIRONMENT, LOOPBACK_ONLY, free_port
from ctxner.files.ray_token import private_token

_MIN_LOCAL_CPUS = 4  # logical CPUs: two cores can share the pipeline's actors and Ray Data's own tasks
_QUIET = {
    **{name: value for name, value in ENVIRONMENT.items() if not name.startswith("RAY_")},
    "DEEPSPEED_LOG_LEVEL": "warning",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # the patch also prints the messages of progress bars, twice
    # Seconds between two looks of Ray Train's controller at its workers, by default 2: a checkpoint waits for the look
    # that takes the one before, so short epochs would take two seconds each.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Ray Data starts so many processes to read the footers of Parquet files, by default 32; a job has few files.
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
}
_LOCALLY = {
    **LOOPBACK_ONLY,
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nothing preempts this machine; starting it logs a needless error
    "RAY_DEDUP_LOGS_SKIP_REGEX": "maximum expected startup concurrency",  # more actors than cores are intended
}


def prepare() -> dict[str, str]:
    """Set the variables that Ray reads when it is imported; call this before anything imports Ray.

    Returns:
        The environment variables for Ray's workers.
    """
    variables = _QUIET if os.environ.get("RAY_ADDRESS") else _QUIET | _LOCALLY
    for name, value in (ENVIRONMENT | variables).items():
        os.environ.setdefault(name, value)
    return variables


def connect() -> None:
    """Join `RAY_ADDRESS` (set by `ray job submit`), or start a local Ray.

    Ray's libraries show only warnings and errors; their other messages are in Ray's log files.
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
    with private_token():
        ray.init(
            address="local",  # else Ray tries to join another Ray on this machine
            num_cpus=max(_MIN_LOCAL_CPUS, os.cpu_count() or 1),
            dashboard_port=port,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": {**variables, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"}},
        )


def _quiet_driver() -> None:
    """Silence what Ray's loggers in this process print at every start."""
    import ray.data  # noqa: F401 (it configures its logger when it is imported)

    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the terminal, not the log file
            handler.setLevel(logging.WARNING)
    for name in ("ray._private.authentication", "ray.data._internal.progress"):  # they report defaults and settings
        logging.getLogger(name).setLevel(logging.ERROR)
