"""MuJoCo scene, tasks and scripted experts; simulator node."""
