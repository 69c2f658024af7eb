"""Streams: tokens that stay resident in an engine's KV cache while data arrives.

Knows nothing of HTTP or of Flash Queries.
"""
