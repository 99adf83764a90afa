"""The exchange between ChainerMN's ranks on CPUs."""
