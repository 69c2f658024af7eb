"""The server: HTTP, websockets, configuration and the command line. Knows nothing of how tokens are made."""
