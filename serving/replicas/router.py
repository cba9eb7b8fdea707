"""The router: HTTP in front of the groups of replicas. `serving.routing` decides which view answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from ctxner.encoders import PACKAGED
from serving.group import Group
from serving.meters import RouterMeter, cluster_metrics
from serving.policy import POLICY
from serving.replicas.shared import calling, listen_on_loopback, shown
from serving.routing import Routing
from serving.service import Service
from serving.settings import ServeSettings
from serving.web import make_app


class RouterReplica:
    """Serves HTTP and calls the groups of replicas.

    Args:
        settings: Settings of the application.
        threshold: Threshold of `auto`, in nats; None: `auto` looks everything up.
        plain: Replicas of the plain view.
        context: Replicas of the context view.
        retriever: Replicas of the retriever; None: passages come from callers only.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        threshold: float | None,
        plain: DeploymentHandle,
        context: DeploymentHandle,
        retriever: DeploymentHandle | None,
    ) -> None:
        listen_on_loopback()
        self.settings = ServeSettings(**settings)
        self.handles = {"plain": plain, "context": context, **({"retriever": retriever} if retriever else {})}
        self.groups = {
            name: Group(
                name,
                calling(handle, "retrieve" if name == "retriever" else "tag"),
                stall_seconds=None
                if name == "plain"
                else POLICY.stall_seconds,  # None: requests wait for the plain view
                alive=calling(handle, "describe"),
            )
            for name, handle in self.handles.items()
        }
        self.routing = Routing(
            self.groups["plain"], self.groups["context"], self.groups.get("retriever"), threshold=threshold
        )
        self.described: tuple[float, dict[str, Any]] = (0.0, {})

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The web application, built in the process that runs it."""
        self.service = Service(
            self.routing,
            self.settings.limits,
            RouterMeter(),
            describe=self.describe,
            ready=self.ready,
            metrics=cluster_metrics,
            callers=max(1, len(self.settings.keys)),
        )
        return make_app(self.service, self.settings.keys, self.settings.hosts)

    async def drain(self, seconds: float) -> int:
        """Take no new work and finish what is in work; the number of requests and lines that were given up."""
        return await self.service.draining.drain(seconds)

    async def describe(self) -> dict[str, Any]:
        """Models, index and settings, as the replicas describe them; groups without a running replica are not asked."""
        since, description = self.described
        if time.monotonic() - since > POLICY.described_seconds or not description:
            names = [name for name, up in (await self.ready()).items() if up]
            told = await asyncio.gather(
                *(asyncio.wait_for(calling(self.handles[name], "describe")(), 2) for name in names),
                return_exceptions=True,
            )
            description = {name: answer for name, answer in zip(names, told, strict=True) if isinstance(answer, dict)}
            retrieval = self.settings.retrieval
            description |= {
                "threshold": self.routing.threshold,
                "reranker": shown(retrieval.encoder or PACKAGED) if self.settings.index and retrieval.rerank else None,
                "limits": self.settings.limits.model_dump(),
            }
            self.described = time.monotonic(), description
        return description

    async def ready(self) -> dict[str, bool]:
        """For each group, by name, whether a replica runs and the group is not down."""
        return {
            name: handle.running_replicas_populated() and not self.groups[name].is_down
            for name, handle in self.handles.items()
        }
