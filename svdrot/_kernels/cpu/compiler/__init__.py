"""From the loops of `svdrot._kernels.cpu.loops` to machine code, kept on disk."""
