"""Foreign payloads → readings: one file for each kind of device or format, none of which knows the hub."""
