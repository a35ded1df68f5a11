"""What a network is: cards, one file a family, the census."""
