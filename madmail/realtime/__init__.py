"""Services in real time beside the mail: calls, WebXDC channels, push, and a way around blocks.

Each is a process of its own under the master, there only while it is switched on.
"""
