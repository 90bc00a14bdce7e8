"""Stand-ins for devices and programs, with the interfaces of the real ones."""
