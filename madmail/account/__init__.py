"""Accounts: their addresses, passwords, creation at first login, and rates."""
