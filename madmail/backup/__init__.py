"""Backups: everything a relay is, in one archive, taken while it serves.

`archive` is the container and its proof, `snapshot` what goes into it, `restore`
the way back.  The running relay takes no part: SQLite lets another process read
one state of its databases for as long as it likes (WAL).
"""
