"""Tests against the real server process."""
