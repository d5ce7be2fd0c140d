"""Whole-relay tests: a real relay, stock clients, crashes, and the messages they use."""
