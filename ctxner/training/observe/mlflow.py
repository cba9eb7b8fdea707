"""Sends a run's parameters, metrics and artifacts to MLflow under one run id, if `run.mlflow` is set.

MLflow is an extra (`pip install 'ctxner[mlflow]'`) and is imported only here. The id is kept in the run's folder, so
that a resumed run continues under it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

RUN_ID_FILE = "mlflow_run_id"
EXPERIMENT = "ctxner"
_MAX_PARAMS = 100  # MLflow's limit per request
_MAX_VALUE = 500  # limit of the oldest servers, in characters
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. :/]")


def check_mlflow(tracking_uri: str | None) -> None:
    """Check before training that workers can use MLflow; does nothing when `tracking_uri` is None.

    Raises:
        ValueError: MLflow is not installed, or the URI is a path that depends on the working directory.
    """
    if tracking_uri is None:
        return
    if importlib.util.find_spec("mlflow") is None:
        raise ValueError(
            f"run.mlflow={tracking_uri}: MLflow is not installed; pip install 'ctxner[mlflow]', or set run.mlflow=null"
        )
    if not urlsplit(tracking_uri).scheme and not Path(tracking_uri).is_absolute():
        raise ValueError(
            f"run.mlflow={tracking_uri}: wanted a tracking URI such as http://host:5000 or an absolute path; "
            "workers change directory"
        )


class MlflowRun:
    """One run on a tracking server: a new one, or the one that the folder's id names.

    A server that later stops answering does not stop training: one warning is logged, and no more metrics are sent.

    Args:
        tracking_uri: Tracking URI (see `check_mlflow`).
        folder: Folder of the run; its name is the run's name.
        settings: Sections of the config, logged as `section.key` when the run begins.

    Raises:
        ValueError: The server cannot be reached.
    """

    def __init__(self, tracking_uri: str, folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
        import mlflow
        from mlflow.entities import Param

        self._uri, self._client, self._alive = tracking_uri, mlflow.MlflowClient(tracking_uri), True
        id_file = folder / RUN_ID_FILE
        try:
            if id_file.is_file():
                self.id = id_file.read_text().strip()
                self._client.update_run(self.id, status="RUNNING")
                return
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
            self.id = self._client.create_run(experiment_id, run_name=folder.name).info.run_id
            params = [
                Param(f"{section}.{key}", str(value)[:_MAX_VALUE])
                for section, setting in settings.items()
                for key, value in setting.items()
            ]
            for first in range(0, len(params), _MAX_PARAMS):
                self._client.log_batch(self.id, params=params[first : first + _MAX_PARAMS])
        except mlflow.MlflowException as error:
            raise ValueError(
                f"run.mlflow={tracking_uri}: {str(error).splitlines()[0]}; start the server or set run.mlflow=null"
            ) from None
        id_file.write_text(self.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the metrics of a step, without values that are not finite."""
        if not self._alive:
            return
        import mlflow
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        finite = {_NOT_IN_NAMES.sub("_", name): value for name, value in values.items() if math.isfinite(value)}
        metrics = [Metric(name, value, now, step) for name, value in finite.items()]
        try:
            self._client.log_batch(self.id, metrics=metrics)
        except mlflow.MlflowException as error:
            self._alive = False
            logger.warning(
                "MLflow at %s: %s; nothing more is sent there, TensorBoard has it all",
                self._uri,
                str(error).splitlines()[0],
            )

    def fail(self) -> None:
        """Mark the run as failed, if the server still answers; MLflow's errors must not hide the error of training."""
        import mlflow

        if self._alive:
            with contextlib.suppress(mlflow.MlflowException):
                self._client.set_terminated(self.id, "FAILED")


def finish_run(tracking_uri: str, folder: Path, artifacts: Iterable[Path]) -> None:
    """Log files and folders as artifacts of a run whose workers are done, and mark it as finished.

    Args:
        tracking_uri: Tracking URI of the server that has the run.
        folder: Folder of the run.
        artifacts: Files and folders to upload.

    Raises:
        ValueError: The server cannot be reached.
    """
    import mlflow

    client, run_id = mlflow.MlflowClient(tracking_uri), (folder / RUN_ID_FILE).read_text().strip()
    try:
        for path in artifacts:
            if path.is_dir():
                client.log_artifacts(run_id, str(path), path.name)
            else:
                client.log_artifact(run_id, str(path))
        client.set_terminated(run_id)
    except (mlflow.MlflowException, OSError) as error:
        raise ValueError(
            f"run.mlflow={tracking_uri}: {str(error).splitlines()[0]}; the run itself is complete in {folder}"
        ) from None
