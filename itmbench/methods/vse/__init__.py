"""VSE++: see README.md beside this file."""
