"""What a client does unless told otherwise."""

__all__ = ["DEFAULT_URL", "PING_INTERVAL"]

DEFAULT_URL = "df://127.0.0.1:6262"
PING_INTERVAL = 30.0
