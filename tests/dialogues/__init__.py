"""Plain-text dialogue scripts and the driver that plays them against a running relay."""
