"""The way to RabbitMQ: a publisher that confirms and a consumer that comes back, each on a connection of its own.

The library's self-mending connection is not used: it is known to hang, and to act on delivery tags of channels that
are gone. What is lost here is made anew, whole. A connection that publishes may be blocked by an alarm, and must not
stop one that consumes: so they are never one.
"""

from broker.consumer import Consumer
from broker.delivery import Consuming, Delivery, Headers, OnConnected, OnDelivery, Publishing, dead_letter
from broker.link import BrokerAddress, open_link
from broker.publisher import Publisher

__all__ = [
    "BrokerAddress",
    "Consumer",
    "Consuming",
    "Delivery",
    "Headers",
    "OnConnected",
    "OnDelivery",
    "Publisher",
    "Publishing",
    "check",
    "dead_letter",
]


async def check(address: BrokerAddress) -> None:
    """Connect once and leave again, for a readiness probe. Raises as `open_link` does."""
    link = await open_link(address, "check")
    await link.close()
