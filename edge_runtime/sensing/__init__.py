"""The parts of the device's eyes: one file per thing that is sensed. `edge_runtime.sensors` puts them together."""
