# SPDX-License-Identifier: Apache-2.0
# Sources what there is of: ROS from apt, ROS of jetson-containers, the packages of pip, the build.
for file in /opt/ros/jazzy/setup.bash /opt/ros/jazzy/install/setup.bash /opt/venv/bin/activate \
  /ros2_ws/install/setup.bash; do
  if [ -f "$file" ]; then
    source "$file"
  fi
done
