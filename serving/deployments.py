"""Ray Serve's options for each kind of replica: queues, CPUs, scaling, health. `serve.yaml` overrides them.

`serving.replicas` defines the replicas; `serving.app` connects them.
"""

from __future__ import annotations

from ray import serve

from serving.replicas.reranker import RerankerReplica
from serving.replicas.retriever import RetrieverReplica
from serving.replicas.router import RouterReplica
from serving.replicas.tagger import TaggerReplica


def _deployment(
    replica: type, name: str, *, ongoing: int, queued: int, target: int, num_cpus: float
) -> serve.Deployment:
    """A deployment of one replica, unless `serve.yaml` overrides that; a new version starts before the old one ends."""
    return serve.deployment(
        name=name,
        max_ongoing_requests=ongoing,
        max_queued_requests=queued,
        autoscaling_config={"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": target},
        ray_actor_options={"num_cpus": num_cpus},
        max_surge_percent=100,
        health_check_period_s=5,
        health_check_timeout_s=20,
        graceful_shutdown_timeout_s=20,
    )(replica)


PlainTagger = _deployment(TaggerReplica, "PlainTagger", ongoing=64, queued=256, target=16, num_cpus=0.5)
ContextTagger = _deployment(TaggerReplica, "ContextTagger", ongoing=64, queued=128, target=8, num_cpus=0.5)
Retriever = _deployment(RetrieverReplica, "Retriever", ongoing=64, queued=128, target=16, num_cpus=0.5)
Reranker = _deployment(RerankerReplica, "Reranker", ongoing=64, queued=128, target=8, num_cpus=0.5)
# The router itself bounds its open requests (`limits.requests`); Serve's queue would hold up health and metrics, too.
Router = _deployment(serve.ingress()(RouterReplica), "Router", ongoing=8192, queued=8192, target=128, num_cpus=0.25)
