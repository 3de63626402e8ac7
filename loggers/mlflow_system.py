"""MLflow's own system metrics, for runs that boxscore creates."""

from __future__ import annotations

import sys
from typing import Any

from .tracking_uri import public


def system_monitor(uri: str, run: str, *, resumed: bool) -> Any | None:
    """MLflow's monitor of CPU, memory, disk, network and GPUs, started; None where not asked for.

    ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true`` or `mlflow.enable_system_metrics_logging` asks
    for it, as for runs of `mlflow.start_run`. It has a thread of its own, which an outage of the
    server ends.

    Args:
        uri: of the server or database.
        run: MLflow's id of the run.
        resumed: whether the run has system metrics of an earlier process.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return None
    reason = "MLflow would print the credentials in the tracking URI: move them to the environment"
    if uri == public(uri):
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = SystemMetricsMonitor(run, resume_logging=resumed, tracking_uri=uri)
            monitor.start()
            return monitor
        except Exception as error:  # such as a missing psutil
            reason = str(error)
    print(f"boxscore: system metrics are not logged: {reason}", file=sys.stderr)
    return None
