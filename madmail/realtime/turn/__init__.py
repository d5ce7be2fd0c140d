"""STUN and TURN (RFC 8489, 8656, 6062): how two phones find each other, or talk through us.

message      the octets of STUN messages
credentials  user names that are times, passwords made from them, nonces
addresses    which peers may be reached
limits       what a stranger, an account and all of them may use
neighbours   what other processes hold of it
ports        relay ports and the time they rest
shared       ports that several allocations have
allocation   what a client has, and the way of a packet through it
requests     what each request does and answers
doors        the listener for datagrams
streams      TCP and TLS clients
connections  TCP between client and peer (RFC 6062)
loop, server, process   the loop in its own thread, what hangs on it, the child of the master
names        the user names that a shard gave
offer        what clients are told in METADATA
"""
