"""Launch files and configuration of Genima."""
