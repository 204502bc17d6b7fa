"""A small prompt for SQL: a statement may take several lines, and the Tab key completes names."""

from __future__ import annotations

import cmd
from typing import TYPE_CHECKING

from recsys.errors import RecsysError
from recsys.terminal import print_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PROMPT, _MORE = "recsys> ", "   ...> "


class Prompt(cmd.Cmd):
    """Read statements until the end of the input, or `quit`; an error ends none but its own.

    Args:
        names: what Tab completes.
        run: does one statement, or a query by its name.
    """

    prompt = _PROMPT
    intro = "End a statement with ; and leave with quit. Tab completes tables and columns."

    def __init__(self, names: Sequence[str], run: Callable[[str], None]) -> None:
        super().__init__()
        self._names, self._run, self._lines = names, run, list[str]()

    def run(self) -> None:
        """Go on until the user leaves."""
        while True:
            try:
                self.cmdloop()
            except KeyboardInterrupt:  # Ctrl-C drops the statement, as in other prompts
                print_line("")
                self._lines, self.prompt, self.intro = [], _PROMPT, ""
            else:
                return

    def onecmd(self, line: str) -> bool:
        """Take a line; run the statement when it ends."""
        text = line.strip()
        if line == "EOF" or (not self._lines and text.rstrip(";") in {"quit", "exit"}):
            return True
        if text:
            self._lines.append(line)
        is_name = len(self._lines) == 1 and text in self._names
        if text.endswith(";") or is_name:
            statement = "\n".join(self._lines).strip().rstrip(";")
            self._lines = []
            try:
                self._run(statement)
            except RecsysError as error:
                print_line(str(error))
        self.prompt = _MORE if self._lines else _PROMPT
        return False

    def completenames(self, text: str, *ignored: object) -> list[str]:  # noqa: ARG002 - cmd's signature
        """Return the names that begin with what is typed."""
        return [name for name in self._names if name.startswith(text)]

    completedefault = completenames
