"""Null protocol: same ring, same sockets, no secrecy (harness overhead and oracle)."""
