"""A parser whose error tells which option may have been meant."""

from __future__ import annotations

import argparse
import difflib


class Parser(argparse.ArgumentParser):
    """argparse's, which does not know what ``--batch-size`` may mean."""

    def parse_known_args(self, args=None, namespace=None):
        """Parses a command line; what it does not know is an error."""
        found, unknown = super().parse_known_args(args, namespace)
        if not unknown:
            return found, unknown
        flags = [flag for action in self._actions for flag in action.option_strings]
        near = dict.fromkeys(
            flag
            for word in unknown
            if word.startswith("-")
            for flag in difflib.get_close_matches(word.partition("=")[0], flags, 1, 0.7)
        )
        hint = f": did you mean {', '.join(near)}?" if near else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
