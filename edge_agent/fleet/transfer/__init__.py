"""Fetching one blob: in parts over MQTT, by `https://`, from an `oci://` registry."""
