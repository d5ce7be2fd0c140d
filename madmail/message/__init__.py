"""Messages as octets: header blocks, MIME structure, OpenPGP framing, the encryption gate.

Everything here is pure: no I/O, no clock, no settings.  The gate
(`inspection.Inspection`) is the single judge of what may reach a mailbox or a
queue; submission, port 25, /mxdeliv, APPEND and WebSMTP all feed it.
"""
