"""The master process: binds every listener, forks the children, keeps them alive.

It is plain Python without gevent's loop and never touches a client's octets.
`arbiter` supervises, `child` is what a child does with its role, `listeners`
binds ports, `state` guards the state directory, `privileges` gives up root,
`control` answers the command line, `plan` says which children a relay has.
"""
