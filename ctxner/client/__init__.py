"""Clients of a ctxner server: `Client` and `AsyncClient`. They import nothing else of ctxner."""

from ctxner.client.blocking import Client
from ctxner.client.http import AsyncClient
from ctxner.client.messages import ClientError, Reply, TextResult

__all__ = ["AsyncClient", "Client", "ClientError", "Reply", "TextResult"]
