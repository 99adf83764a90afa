"""What ChainerMN's ranks exchange on CPUs."""
