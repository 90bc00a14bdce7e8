"""Simulated hand-eye calibration: set-ups with known truth, photographed as a real camera would."""

from genima_sim.calibration.optics import Sensor
from genima_sim.calibration.setup import Setup, late, upside_down
from genima_sim.calibration.workcell import CalibrationWorkcell

__all__ = ["CalibrationWorkcell", "Sensor", "Setup", "late", "upside_down"]
