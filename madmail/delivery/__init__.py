"""What happens to a message once it has passed the rules.

`policy` says who may send to whom, on every path alike.  `router` splits an
accepted message by shard and by domain and makes it durable.  `courier` is the
process that works off the outboxes of all shards.
"""
