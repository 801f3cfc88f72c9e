"""Tests of dataflow-serve; see README.md here for the suites."""
