"""Stand-ins for devices and programs that are not here: they speak the interfaces of the real ones."""
