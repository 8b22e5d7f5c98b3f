"""A ROS 2 node over fgsbir_edge: ``finder`` knows no ROS, ``messages`` no rclpy, ``node`` joins them."""
