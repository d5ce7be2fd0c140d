"""The Shadowsocks proxy."""
