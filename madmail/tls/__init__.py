"""Certificates and TLS contexts of the listening side."""
