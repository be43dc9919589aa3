"""What scripts/generate makes: parts of the SDKs, and the page of the commands."""
