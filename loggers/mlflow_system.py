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
    from mlflow import environment_variables

    asked: Any = environment_variables.MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    if not asked.get():
        return None
    reason = "MLflow would print the credentials in the tracking URI: move them to the environment"
    if uri == public(uri):
        try:
            from mlflow.system_metrics import system_metrics_monitor

            maker: Any = system_metrics_monitor.SystemMetricsMonitor
            monitor = maker(run, resume_logging=resumed, tracking_uri=uri)
            monitor.start()
            return monitor
        except Exception as error:  # such as a missing psutil
            reason = str(error)
    print(f"boxscore: system metrics are not logged: {reason}", file=sys.stderr)
    return None
