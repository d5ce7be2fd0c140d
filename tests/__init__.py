"""Tests: unit tests beside rooms' names, dialogues, corpora, whole-relay and real-client tests."""
