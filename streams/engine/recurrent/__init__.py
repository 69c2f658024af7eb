"""Recurrent models, RWKV-6 and Mamba, through llama.cpp: what a stream holds is a state, and not a KV cache."""
