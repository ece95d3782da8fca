"""The real Redis server of the demo, for tests."""

from example_app.redis_server import RedisServer, binary, free_port

__all__ = ["RedisServer", "binary", "free_port"]
