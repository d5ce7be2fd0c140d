"""The store: accounts, mailboxes, messages and the outbox of one shard, and what is global.

`interface` says what a store offers; `sqlite` is the implementation that needs
nothing but one directory a shard:

    <state_dir>/control.db            settings and blocklist of the whole relay
    <state_dir>/shards/N/store.db     index and bodies up to INLINE_LIMIT, WAL
    <state_dir>/shards/N/lock         held while a process has the store open
    <state_dir>/shards/N/blobs/xx/…   larger bodies, one file each
    <state_dir>/shards/N/spool/…      large messages that are still being received

Exactly one process writes a shard.  That is what allows caches without
invalidation from outside, UIDs without locks, and one fsync for everything
that happened to be written at the same time.
"""
