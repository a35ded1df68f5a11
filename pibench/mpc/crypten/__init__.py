"""Stock CrypTen, as its users have it today."""
