"""Cameras: intrinsics, extrinsics, calibration files, undistortion and tiling."""
