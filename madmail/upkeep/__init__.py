"""What is done about a shard's accounts without anybody asking: expiry and cleaning.

Each shard looks after its own accounts, in its own process, in slices between
which its sessions get their turn.  `task` names what there is to do, `clock`
decides whether the clock can be trusted to do it, `schedule` when it is due,
`removal` does it, `job` keeps track of what runs, and `caretaker` brings them
together for a shard.
"""
