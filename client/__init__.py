"""What a user holds: `Client`, `Future` and the functions that go with them."""

from holdfast.client.client import Client
from holdfast.client.collections import futures_of
from holdfast.client.futures import Future, wait

__all__ = ["Client", "Future", "futures_of", "wait"]
