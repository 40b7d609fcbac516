"""What a bundle costs on this device: measure it, keep it, compare it. `result` has the records and their file."""
