"""Sessions between two hosts: who lends, who calls, and what they say to each other."""
