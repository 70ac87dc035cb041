"""Methods: one file each, or one folder where a paper's figures map to files. Each is a ``Matcher``."""
