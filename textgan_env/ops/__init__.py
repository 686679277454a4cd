"""Pure functions and kernels: sampling, losses, metrics, pictures, the episode state machine."""
