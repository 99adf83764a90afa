"""The part of ``pkg_resources`` that Chainer and ChainerCV use.

setuptools 81 removed the module.
"""

from __future__ import annotations

import re
from importlib import metadata


class ResolutionError(Exception):
    """A requirement is not satisfied."""


class DistributionNotFound(ResolutionError):
    """A distribution is not installed."""


class VersionConflict(ResolutionError):
    """A distribution is installed in another version."""


def get_distribution(name: str) -> metadata.Distribution:
    """Returns an installed distribution; it has a ``version``."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise DistributionNotFound(name) from None


def require(*requirements: str) -> list[metadata.Distribution]:
    """Returns the distributions that satisfy ``requirements``.

    Requirements of requirements are not followed.

    Raises:
        DistributionNotFound: If one is not installed.
        VersionConflict: If one is installed in a version that does not satisfy it.
    """
    return [_require(requirement) for requirement in requirements]


def _require(requirement: str) -> metadata.Distribution:
    distribution = get_distribution(re.match(r"[\w.-]*", requirement.strip()).group())
    # Imported late: Chainer asks for 17 CuPys and iDeep whenever it is imported.
    from packaging.requirements import Requirement

    specifier = Requirement(requirement).specifier
    if not specifier.contains(distribution.version, prereleases=True):
        raise VersionConflict(f"{distribution.version} is not {requirement}")
    return distribution


class WorkingSet:
    """The installed distributions."""

    require = staticmethod(require)
