"""What pyproject.toml cannot say: where the start-up hook goes."""

import os

from setuptools import Distribution, find_packages, setup  # isort: split

# setuptools' own copy, which importing setuptools puts in the place of Python's.
from distutils.command.install_data import install_data


class InstallStartUpHook(install_data):
    """Puts the data file, the start-up hook, beside the packages.

    A wheel, editable or not, keeps data files in ``<name>.data/data``, which is
    unpacked into ``sys.prefix``; its ``<name>.data/purelib`` goes to site-packages,
    where Python looks for ``.pth`` files.
    """

    def finalize_options(self):
        super().finalize_options()
        self.install_dir = os.path.join(os.path.dirname(self.install_dir), "purelib")


class DistributionWithData(Distribution):
    """Answers the question by which editable installs decide to install data."""

    def has_data(self):
        return self.has_data_files()


setup(
    py_modules=["chainer_mmix_command"],
    packages=find_packages(include=["chainer_mmix*", "chainer_revive*"]),
    cmdclass={"install_data": InstallStartUpHook},
    distclass=DistributionWithData,
)
