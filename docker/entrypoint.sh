#!/usr/bin/env bash
# Everything sourced, from the bottom up: ROS, its drivers where they are, Genima.
set -eo pipefail
source /opt/ros/jazzy/setup.bash
[[ ! -e /opt/drivers/install/setup.bash ]] || source /opt/drivers/install/setup.bash
source /opt/genima/.venv-jazzy/bin/activate
source /opt/genima/install/setup.bash
exec "$@"
