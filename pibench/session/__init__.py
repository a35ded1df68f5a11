"""One measured session: its processes, how they find each other, and how they end."""
