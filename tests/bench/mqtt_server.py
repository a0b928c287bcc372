"""amqtt for `bench_mqtt`: a broker for anybody. Prints its port, serves until stdin closes.

Run by the interpreter of an environment that has amqtt, so it imports nothing else.
"""

import asyncio
import logging
import socket
import sys

from amqtt.broker import Broker  # type: ignore[import-not-found]


async def main() -> None:
    """Serve."""
    logging.disable()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listener = {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 4096}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = Broker({"listeners": {"default": listener}, "plugins": plugins})
    await broker.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
