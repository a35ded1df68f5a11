"""Two parties, their wire, and the protocols that run a program between them."""
