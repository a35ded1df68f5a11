"""The fast protocol: masked linear layers and one-time-table ReLUs with a dealer."""
