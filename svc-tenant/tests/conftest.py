from flotilla.testing.servers import nats_server, postgres_server

__all__ = ["nats_server", "postgres_server"]
