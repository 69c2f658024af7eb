"""Flash Queries: standing questions over a stream, evaluated after every batch, answered from a cache.

Knows nothing of HTTP or of the engine behind a stream.
"""
