"""The relay of WebXDC channels: it passes packets between two nodes that are connected now.

Delta Chat speaks the protocol of iroh 0.35 (`derp`, and `messages` over WebSocket), later
versions that of 1.x (`messages`).  Codecs (`derp`, `messages`, `handshake`, `request`) are
pure; `connection` and `process` are callbacks on the loop, so an idle node costs no greenlet.
What nodes say to each other is theirs: the relay sees keys, sizes and times, and keeps nothing.
"""
