"""Mail over HTTP for browsers: WebIMAP (reading) and WebSMTP (sending), REST and WebSocket.

A request opens a session of its own with the shard of the account, as a gate would
hand one over, and speaks IMAP or SMTP in it.  So passwords, limits, the encryption
gate, flags, folders, search and news are those of everybody else, and nothing is
done twice.
"""
