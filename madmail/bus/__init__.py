"""Small events between processes ("account has news", "setting changed"), never message bytes.

`frame` is the form of everything said on an internal socket, `embedded` the
bus of a relay on one host: each child publishes to the master, which passes
the event on to all other children.  A lost event may delay a client, never
lose mail.
"""
