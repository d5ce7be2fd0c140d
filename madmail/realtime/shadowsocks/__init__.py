"""The Shadowsocks proxy: a way to this relay, and nowhere else, through networks that block it.

`methods`, `destination`, `stream` and `handshake` are the protocol, pure on bytes;
`salts` remembers what was used before, `services` knows what may be reached, `pseudonym` tells
clients apart without saying who they are; `tunnel` is one connection, `proxy` what all share,
`process` the child of the master; `link` is what users are given.
"""
