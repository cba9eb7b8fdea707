"""Settings for starting Ray on this machine: environment variables to set before Ray is imported, and a free port.

`jobs.cluster` connects commands to Ray; `serving.local` starts the server's Ray.
"""

from __future__ import annotations

import socket

ENVIRONMENT = {  # for the driver and all workers
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # Ray's handler would replace that of a JVM in the same process
}
# Ray started on one machine listens on loopback only. The variable makes Ray do on Linux what it does on macOS and
# Windows; otherwise its metrics agent and its RPC ports are open to the network.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def free_port() -> int:
    """Number of a port of the loopback interface on which no process listens."""
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        return int(taker.getsockname()[1])
