"""Tests that need neither the extension nor a server."""
