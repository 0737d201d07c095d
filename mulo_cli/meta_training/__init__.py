"""Meta-training: from gradient estimates to better meta-parameters."""
