"""Systems on paper: published constants, what they predict, and how that was checked."""
