"""Simulated hand-eye calibration: random setups with ground truth, and images as of a real camera."""

from genima_sim.calibration.calibration_setup import CalibrationSetup, delay_images, rotate_images
from genima_sim.calibration.optics import Sensor
from genima_sim.calibration.workcell import CalibrationWorkcell

__all__ = ["CalibrationWorkcell", "Sensor", "CalibrationSetup", "delay_images", "rotate_images"]
