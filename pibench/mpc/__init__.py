"""Two parties, their wire, and the protocols that run a program between them."""

from pibench.kernelcache import settle

settle()  # before anything below imports numba
