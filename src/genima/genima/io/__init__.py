"""Files: limited reading, atomic writing."""
