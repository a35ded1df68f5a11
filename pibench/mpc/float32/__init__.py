"""PyTorch in float32: what the network takes without ring or secrecy."""
