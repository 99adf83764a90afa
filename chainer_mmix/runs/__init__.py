"""Finished runs: what they left in their folders, compared and shown."""
