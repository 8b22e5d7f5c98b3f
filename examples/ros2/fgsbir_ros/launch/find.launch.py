"""Start the node: ros2 launch fgsbir_ros find.launch.py gallery:=/data/photos.fgsbir person:=ann"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description() -> LaunchDescription:
    """The node with a file of parameters, some of which can be given on the command line."""
    file = os.path.join(get_package_share_directory("fgsbir_ros"), "config", "find.yaml")
    return LaunchDescription(
        [
            DeclareLaunchArgument("config", default_value=file, description="a file of parameters"),
            DeclareLaunchArgument("gallery", description="the gallery's file"),
            DeclareLaunchArgument("person", default_value="", description="who draws"),
            DeclareLaunchArgument("k", default_value="5", description="hypotheses in a Classification"),
            Node(
                package="fgsbir_ros",
                executable="find",
                name="fgsbir",
                output="screen",
                parameters=[
                    LaunchConfiguration("config"),
                    {
                        "gallery": ParameterValue(LaunchConfiguration("gallery"), value_type=str),
                        "person": ParameterValue(LaunchConfiguration("person"), value_type=str),
                        "k": ParameterValue(LaunchConfiguration("k"), value_type=int),
                    },
                ],
            ),
        ]
    )
