"""Console output: what stands on the screen in the end."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wandbsync.sources.console import Console, rendered


def lines(*pieces: str) -> list[str]:
    return [text for _, _, text in rendered(("stdout", None, piece) for piece in pieces)]


def test_lines_are_put_together_from_pieces() -> None:
    assert lines("epoch", " ", "1", "\n", "", "two\nthree\n\nfo", "ur") == ["epoch 1", "two", "three", "", "four"]


def test_a_progress_bar_leaves_its_last_state() -> None:
    assert lines("\r 10%|#  ", "\r 50%|## ", "\r100%|###", "\n", "done\r\n") == ["100%|###", "done"]


def test_what_a_shorter_text_does_not_cover_stays() -> None:
    assert lines("abcdef\rXY\n") == ["XYcdef"]
    assert lines("abcdef\r\x1b[KXY\n") == ["XY"]


@pytest.mark.parametrize(
    "command",
    ["\x1b[0m", "\x1b[1;38;5;196m", "\x1b[38:2::1:2:3m", "\x1b[?25l", "\x1b[>4;2m", "\x1b[2 q", "\x1b(B", "\x1b=",
     "\x1b7", "\x1bM", "\x1b]0;a title\x07", "\x1b]8;;https://x.y\x1b\\", "\x1bP1$r0m\x1b\\", "\x07", "\x00", "\x0e"],
)  # fmt: skip
def test_terminal_commands_are_left_out_wherever_they_are_cut(command: str) -> None:
    assert lines(f"a{command}b\n") == ["ab"]
    for cut in range(len(command) + 1):
        assert lines(f"a{command[:cut]}", f"{command[cut:]}b\n") == ["ab"], cut


def test_a_tab_and_other_languages_stay() -> None:
    assert lines("a\tb ✓ größe 損失\n") == ["a\tb ✓ größe 損失"]


def test_a_command_that_never_ends_takes_nothing_with_it() -> None:
    assert lines("before \x1b[12\n", "after\n") == ["before [12", "after"]
    assert lines("\x1b]" + "x" * 10_000 + "\n", "after\n") == ["]" + "x" * 10_000, "after"]


def test_stdout_and_stderr_do_not_mix() -> None:
    pieces = [("stdout", 1.0, "out"), ("stderr", 2.0, "err\n"), ("stdout", 3.0, "put\n"), ("stderr", 4.0, "open")]
    assert rendered(pieces) == [("stderr", 2.0, "err"), ("stdout", 3.0, "output"), ("stderr", 4.0, "open")]


def test_the_end_of_the_program_ends_its_lines_once() -> None:
    console = Console()
    assert list(console.write("stdout", 1.0, "open")) == []
    assert list(console.close()) == [("stdout", 1.0, "open")]
    assert list(console.close()) == []


# A terminal, one token at a time: it never parses, so it cannot share a parser's mistakes.

TOKENS = st.one_of(
    st.sampled_from(
        ["\r", "\b", "\n", "\x1b[K", "\x1b[0K", "\x1b[1K", "\x1b[2K", "\x1b[31m", "\x1b(B", "\x1b]0;t\x07"]
    ),
    st.text("ab é", min_size=1, max_size=4),
)


def on_a_screen(tokens: list[str]) -> list[str]:
    screen: list[str] = []
    row: list[str] = []
    cursor = 0
    for token in tokens:
        if token == "\n":
            screen.append("".join(row))
            row, cursor = [], 0
        elif token == "\r":
            cursor = 0
        elif token == "\b":
            cursor = max(0, cursor - 1)
        elif token in ("\x1b[K", "\x1b[0K"):
            del row[cursor:]
        elif token == "\x1b[1K":
            row[: cursor + 1] = " " * len(row[: cursor + 1])
        elif token == "\x1b[2K":
            row = []
        elif not token.startswith("\x1b"):
            for char in token:
                row += " " * (cursor - len(row) + 1)
                row[cursor] = char
                cursor += 1
    screen.append("".join(row))
    return [line.rstrip(" ") for line in screen]


@settings(max_examples=400)
@given(st.lists(TOKENS, max_size=30), st.data())
def test_it_is_what_a_terminal_shows_however_it_is_cut(tokens: list[str], data: st.DataObject) -> None:
    text = "".join(tokens)
    expected = on_a_screen(tokens)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    if not expected[-1]:
        expected.pop()  # an empty open line is no line
    assert lines(*pieces) == expected
    # And it can be put away and gone on with between any two pieces.
    console, found = Console(), []
    for piece in pieces:
        found += [line for _, _, line in console.write("stdout", None, piece)]
        console = Console.load(json.loads(json.dumps(console.dump())))
    assert [*found, *(line for _, _, line in console.close())] == expected
