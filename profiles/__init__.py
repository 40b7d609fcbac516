"""Device profiles, one TOML file for each kind of device; the format is in docs/profiles.md. In the wheel this folder
is `edge_runtime.profiles`; read it with edge_runtime.device_profile."""
