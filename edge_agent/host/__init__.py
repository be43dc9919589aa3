"""Hosting: plugins on runtimes, their replacement, their failures, their reports."""
