"""A shard: the one process that owns a fixed part of the accounts.

It keeps their sessions, their store, and answers calls about them from the
other processes.  Nothing here knows the network: gates hand sessions over on
a Unix socket.
"""
