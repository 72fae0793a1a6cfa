"""The commands of the command line, one module for each group; :mod:`latentwire.cli` gives them their names."""
