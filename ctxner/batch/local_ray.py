"""What starting a Ray on this machine needs before Ray is imported: environment variables, a free port.

Commands that join a cluster are `jobs.cluster`; the server's Ray is `serving.local`.
"""

from __future__ import annotations

import socket

ENVIRONMENT = {  # for the driver and all workers
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # Ray's handler would replace that of a JVM in the same process
}


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        return int(taker.getsockname()[1])
