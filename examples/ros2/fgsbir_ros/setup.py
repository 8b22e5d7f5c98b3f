"""The ament_python package of the node."""

from setuptools import setup

NAME = "fgsbir_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/find.launch.py"]),
        (f"share/{NAME}/config", ["config/find.yaml"]),
    ],
    install_requires=["setuptools", "fgsbir-edge"],
    zip_safe=True,
    maintainer="fgsbir-edge maintainers",
    maintainer_email="fgsbir-edge@example.org",
    description="Finds the photo that a drawing means, and adapts to the person who draws.",
    license="MIT",
    entry_points={"console_scripts": [f"find = {NAME}.node:main"]},
)
