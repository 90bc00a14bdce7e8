"""Simulated hand-eye calibration: random setups with ground truth, and images as of a real camera."""

from simulated_calibration.optics import Sensor
from simulated_calibration.setup import CalibrationSetup, delay_images, rotate_images
from simulated_calibration.workcell import CalibrationWorkcell

__all__ = ["CalibrationWorkcell", "Sensor", "CalibrationSetup", "delay_images", "rotate_images"]
