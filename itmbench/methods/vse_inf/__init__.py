"""VSE-infinity: see README.md beside this file."""
