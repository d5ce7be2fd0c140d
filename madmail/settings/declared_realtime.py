"""Settings of calls, WebXDC channels, push notifications and the proxy."""

from __future__ import annotations
