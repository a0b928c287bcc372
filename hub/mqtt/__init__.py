"""MQTT as the hub speaks it to devices: an ingest endpoint, not a broker. Everything here only computes."""
