"""What an administrator can do: one file a family of operations.

Operations are functions over a `Relay` (`relay`), used by the command line and
by the admin API alike.  They return plain data, dictionaries of values that
JSON knows, with times in Unix seconds, and raise `Refused` (`refused`).
"""
