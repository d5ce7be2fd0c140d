"""The gate: TLS, the dialogue before login, the hand-over to a shard, then moving bytes.

A gate knows keys but no mail; a shard knows mail but no network.
"""
