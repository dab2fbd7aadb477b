"""What `svdrot.registration.judge` measures: arrays of numpy, float64, in units of the clouds' own size."""
