"""SMTP as the relay speaks it (RFC 5321 and its extensions).

`grammar` and `data` are pure: octets in, values out.  `reply` holds what is
said back.  `session` and `verbs` run one connection inside a shard, after a
gate has greeted, encrypted and authenticated it.
"""
