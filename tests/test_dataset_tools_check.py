"""`check` finds every planted violation, and nothing in a sound folder; the command line around it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from damaged_folder import damaged

from dataset_tools import __version__
from dataset_tools import check as check_module
from dataset_tools.__main__ import COMMANDS, main
from dataset_tools.check import check
from dataset_tools.engine import Engine
from dataset_tools.writer import write_dataset

WIDTH = "row of the wrong width (is the file cut short, a quote not doubled?)"
QUOTE = "quote that is not closed on its line or not doubled (RFC 4180, one row per line)"
CHANGED = "file that was changed since it was written (SHA-256)"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sound data set with every kind of file."""
    folder = tmp_path_factory.mktemp("check") / "x"
    tables = {
        "inter": pl.DataFrame({"user_id": ["a", "b"], "item_id": ["1", "2"], "timestamp": [1500000000, 1600000000]}),
        "item": pl.DataFrame(
            {
                "item_id": ["1", "2"],
                "title": ["One", "Two"],
                "author_id": ["q", ""],
                "duration": [10, 20],
                "mark": [1, 2],
            }
        ),
        "user": pl.DataFrame({"user_id": ["a", "b"]}),
        "cinter": pl.DataFrame(
            {"user_id": ["a", "b"], "comment_id": ["c", "d"], "item_id": ["1", "2"], "timestamp": [1500000000] * 2}
        ),
        "comment": pl.DataFrame({"comment_id": ["c", "d"], "item_id": ["1", "2"], "content": ["first", 'say "hi"']}),
    }
    write_dataset(folder, tables, meta={"source": "test"})
    return folder


def swap(suffix: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace the only occurrence of a text in a file of the folder."""

    def damage(folder: Path) -> None:
        path = folder / f"x.{suffix}"
        text = path.read_bytes()
        assert text.count(old.encode()) == 1, (path, old)
        path.write_bytes(text.replace(old.encode(), new.encode("latin-1") if new == "\xff" else new.encode()))

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


PLANTED: list[tuple[Callable[[Path], None], str]] = [
    (
        swap("inter", "b\t2\t", "b\t9\t"),
        "x.inter: 1 × item_id in .inter that .item does not have (line 3: item_id='9')",
    ),
    (
        swap("inter", "b\t2\t", "e\t2\t"),
        "x.inter: 1 × user_id in .inter that .user does not have (line 3: user_id='e')",
    ),
    (
        swap("inter", "b\t2\t", "NA\t2\t"),
        "x.inter: 1 × user_id that is empty or read as missing (NA, null …) in .inter",
    ),
    (
        swap("item", "\tq\t", "\tnull\t"),
        "x.item: 1 × author_id that is empty or read as missing (NA, null …) in .item (line 2: author_id='null')",
    ),
    (
        swap("inter", "1600000000", "1400000000"),
        "x.inter: 1 × .inter is not in the order of time (line 3: timestamp=14",
    ),
    (
        swap("inter", "1600000000", "1600000000000"),
        "x.inter: 1 × timestamp in milli- or microseconds, seconds expected",
    ),
    (swap("inter", "1600000000", "16"), "x.inter: 1 × timestamp outside 1990–2100 in .inter (line 3: timestamp=16.0)"),
    (swap("inter", "1600000000", "soon"), "x.inter: 1 × malformed number in .inter (line 3: timestamp='soon')"),
    (
        swap("inter", "\t1600000000", ""),
        f"x.inter: 1 × {WIDTH} (line 3: 2 fields, 3 expected)",
    ),
    (
        swap("inter", "b\t2\t", "\nb\t2\t"),
        f"x.inter: 1 × {WIDTH} (line 3: 1 field, 3 expected)",
    ),
    (swap("user", "\nb\n", "\n\nb\n"), "x.user: 1 × user_id that is empty or read as missing (NA, null …) in .user"),
    (
        swap("inter", "user_id:token\t", "user_id\t"),
        "x.inter: 1 × file that cannot be read (line 1: column 'user_id' must be a new `field:type`",
    ),
    (swap("item", "mark:float", "a b:float"), "x.item: 1 × column name that cannot be used (line 1: 'a b' cannot be"),
    (swap("item", "mark:float", "_line:float"), "x.item: 1 × column name that cannot be used (line 1: _line is taken)"),
    (
        swap("inter", "timestamp:float", "timestamp:token"),
        "x.inter: 1 × column of the wrong type (line 1: timestamp:token",
    ),
    (swap("inter", "timestamp:float", "time:float"), "x.inter: 1 × missing column (line 1: timestamp:float)"),
    (swap("item", "2\tTwo", "1\tTwo"), "x.item: 1 × duplicated item_id in .item (line 3: item_id='1')"),
    (swap("item", "Two", ""), "x.item: 1 × empty title in .item (line 3: item_id='2')"),
    (
        swap("item", "Two", "Two  words"),
        "x.item: 1 × title that is not normalised (blanks, control characters) (line 3",
    ),
    (swap("item", "Two", "\xff"), "x.item: 1 × bytes that are not UTF-8 (line 3: invalid start byte at byte 2)"),
    (
        swap("item", "\t20\t2\n", "\t20\t2"),
        "x.item: 1 × last line without line break (is the file cut short?) (line 3)",
    ),
    (swap("item", "\t20\t2", "\t20\ttwo"), "x.item: 1 × malformed number in .item (line 3: mark='two')"),
    (
        swap("cinter", "c\t1", "c\t2"),
        "x.cinter: 1 × item_id in .cinter that is not its comment's (line 2: comment_id='c'",
    ),
    (
        swap("comment", "\tfirst", '\t"first'),
        f"x.comment: 1 × {QUOTE} (line 2: content='\"first')",
    ),
    (swap("comment", "\tfirst", '\tfi"rst'), f"x.comment: 1 × {QUOTE} (line 2: content='fi\"rst')"),
    (swap("comment", "\tfirst", '\t"fi"rst"'), f'x.comment: 1 × {QUOTE} (line 2: content=\'"fi"rst"\')'),
    (swap("comment", "\tfirst", '\t"fi\nrst"'), f"x.comment: 1 × {QUOTE} (line 2: content='\"fi')"),
    (swap("comment", "\tfirst", '\t"fi\nrst"'), f"x.comment: 1 × {WIDTH} (line 3: 1 field, 3 expected)"),
    (
        swap("comment", "first", "second"),
        "x.meta.json: 1 × file that was changed since it was written (SHA-256) (x.comment)",
    ),
    (
        swap("yaml", "item_id, title", "item_id, name"),
        "x.yaml: 1 × load_col names a column that is not there (item: name)",
    ),
    (swap("yaml", "load_col", "load"), "x.yaml: 1 × RecBole settings without load_col"),
    (remove("x.yaml"), "x.yaml: 1 × missing file (stock RecBole needs it)"),
    (remove("x.comment"), "x.comment: 1 × missing file"),
    (remove("x.user"), "x.meta.json: 1 × file of the meta file that is missing (x.user)"),
    (remove("x.meta.json"), "x.meta.json: 1 × missing file (where the data come from is not known)"),
    (swap("meta.json", '"files"', '"hashes"'), "x.meta.json: 1 × meta file without the SHA-256 of the files ('files')"),
    (swap("meta.json", '"x.user"', '"x.users"'), "x.meta.json: 1 × file that the meta file does not know (x.user)"),
]


@pytest.mark.parametrize(("damage", "message"), PLANTED, ids=[message for _, message in PLANTED])
def test_every_planted_violation_is_found(
    tmp_path: Path, sound: Path, damage: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(damaged(sound, tmp_path, damage))]) == 1
    assert message in capsys.readouterr().out


def damage_many_rows(folder: Path) -> None:
    """Faults of several kinds in every file of `long`, one below the other and far apart."""
    for suffix, changes in {
        "comment": {2: "c0\t0", 3: 'c1\t1\t"open', 500: "c4\t4\tagain", 900: "c898\t8\tdouble  blank", 901: ""},
        "inter": {4: "u2\t2\tsoon", 700: "u8\t99\t1600000698", 800: "u8\t8\t16000", 1001: "u1\t9\t1500000000"},
        "user": {11: "u8"},
    }.items():
        path = folder / f"long.{suffix}"
        lines = path.read_text().split("\n")
        for line, text in changes.items():
            lines[line - 1] = text
        path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound data set of a thousand rows."""
    folder = tmp_path_factory.mktemp("long") / "long"
    ten, many = range(10), range(1000)
    tables = {
        "inter": pl.DataFrame({"user_id": [f"u{k % 10}" for k in many], "item_id": [str(k % 10) for k in many]}),
        "item": pl.DataFrame({"item_id": [str(k) for k in ten], "title": ['"', "x"] * 5}),
        "user": pl.DataFrame({"user_id": [f"u{k}" for k in ten]}),
        "cinter": pl.DataFrame({"user_id": ["u1"], "comment_id": ["c7"], "item_id": ["7"], "timestamp": [1600000000]}),
        "comment": pl.DataFrame(
            {
                "comment_id": [f"c{k}" for k in many],
                "item_id": [str(k % 10) for k in many],
                "content": [('say "hi"', "評", "", '"')[k % 4] for k in many],
            }
        ),
    }
    tables["inter"] = tables["inter"].with_columns(timestamp=pl.Series(many) + 1600000000)
    write_dataset(folder, tables, meta={"source": "test"})
    return folder


def test_every_fault_is_found_in_one_run_and_blocks_do_not_matter(
    tmp_path: Path, long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = damaged(long, tmp_path, damage_many_rows)
    found = [
        f"long.comment: 1 × {QUOTE} (line 3: content='\"open')",
        "long.comment: 1 × duplicated comment_id in .comment (line 500: comment_id='c4')",
        f"long.comment: 2 × {WIDTH} (line 2: 2 fields, 3 expected; line 901: 1 field, 3 expected)",
        "long.comment: 1 × content that is not normalised (blanks, control characters)"
        " (line 900: content='double  blank')",
        "long.inter: 1 × .inter is not in the order of time (line 1,001: timestamp=1500000000.0)",
        "long.inter: 1 × item_id in .inter that .item does not have (line 700: item_id='99')",
        "long.inter: 1 × malformed number in .inter (line 4: timestamp='soon')",
        "long.inter: 1 × timestamp outside 1990–2100 in .inter (line 800: timestamp=16000.0)",
        "long.inter: 99 × user_id in .inter that .user does not have (line 11: user_id='u9'; line 21: user_id='u9';"
        " line 31: user_id='u9'; line 41: user_id='u9'; line 51: user_id='u9'; …)",
        "long.user: 1 × duplicated user_id in .user (line 11: user_id='u8')",
        f"long.meta.json: 3 × {CHANGED} (long.comment; long.inter; long.user)",
    ]
    for size in (8 << 20, 5000, 500):
        monkeypatch.setattr(check_module, "_BLOCK_BYTES", size)
        assert check(long) == []
        assert sorted(map(str, check(folder))) == sorted(found), size


def test_rows_may_end_as_on_windows(tmp_path: Path, long: Path) -> None:
    def damage(folder: Path) -> None:
        path = folder / "long.comment"
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert [violation.kind for violation in check(damaged(long, tmp_path, damage))] == [CHANGED]


@pytest.mark.parametrize("text", ["user_id:token", "user_id:token\n"])
def test_a_file_without_rows(tmp_path: Path, sound: Path, text: str) -> None:
    folder = damaged(sound, tmp_path, lambda folder: (folder / "x.user").write_text(text))
    kinds = [violation.kind for violation in check(folder)]
    lost = [f"user_id in .{suffix} that .user does not have" for suffix in ("cinter", "inter")]
    assert kinds == [
        *(lost if text[-1] == "\n" else ["last line without line break (is the file cut short?)"]),
        CHANGED,
    ]


def test_temporary_files_go_where_they_are_told(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(check_module, "_read", lambda path, suffix, stage, advance: seen.append(stage.folder))
    assert main(["check", str(sound), "--temp", str(tmp_path / "new" / "temp")]) == 0
    assert seen and all(tmp_path / "new" / "temp" in folder.parents for folder in seen)
    assert list((tmp_path / "new" / "temp").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert main(["check", str(sound), "--temp", str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lsvcr-data check: the check stopped: ")
    assert said.endswith(
        f"(temporary files in {tmp_path / 'file'}: free space there, or name another folder with --temp)\n"
    )


def test_no_room_to_sort_is_one_message(
    tmp_path: Path, long: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Engine.__init__, "__kwdefaults__", {"memory": 0.001})
    assert main(["check", str(long), "--temp", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lsvcr-data check: the check stopped: Out of Memory Error: ") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_violations_are_counted_per_kind(tmp_path: Path, sound: Path) -> None:
    folder = tmp_path / "x"
    shutil.copytree(sound, folder)
    (folder / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "a\t7\t1\n" * 9)
    found = {violation.kind: violation for violation in check(folder)}
    assert found["timestamp outside 1990–2100 in .inter"].count == 9
    assert len(found["timestamp outside 1990–2100 in .inter"].first) == 5


def test_a_sound_folder_is_said_to_be_sound(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(sound) == []
    assert main(["check", str(sound)]) == 0
    assert capsys.readouterr().out == f"{sound}: sound\n"


def test_a_folder_that_is_none_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "is not a folder; give the folder of a data set" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_explains_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and f"lsvcr-data {name}" in out and "example:" in out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["youtube", "a"],
        ["youtube", "a", "b", "--min-user-inter", "-1"],
        ["sample", "a", "--seed", "x"],
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "lsvcr-data" in capsys.readouterr().err


def test_both_packages_have_one_version() -> None:
    package = Path(__file__).resolve().parents[1] / "recbole_lsvcr" / "__init__.py"
    assert f'__version__ = "{__version__}"' in package.read_text(encoding="utf-8")


def test_the_meta_file_names_no_machine_path(sound: Path) -> None:
    meta = json.loads((sound / "x.meta.json").read_text())
    assert str(sound.parent) not in json.dumps(meta) and set(meta["files"]) == {
        "x.inter", "x.item", "x.user", "x.cinter", "x.comment", "x.yaml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("load_col: 2023-13-45", "RecBole settings without load_col"),
        ("load_col: " + "[" * 5000, "RecBole settings without load_col"),
        ("load_col: {inter: [[user_id]]}", "load_col names a column that is not there"),
        ('load_col: {"in\\0ter": [user_id]}', "load_col names a column that is not there"),
    ],
)
def test_settings_at_which_their_reader_stumbles(sound: Path, tmp_path: Path, text: str, kind: str) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "x"))
    (folder / f"{folder.name}.yaml").write_text(text)
    assert kind in {violation.kind for violation in check(folder)}


@pytest.mark.parametrize(
    "files", [{"": "x"}, {"..": "x"}, [[1, 2]], [["a", 1], [None, 2]], {"\0": "x"}, {"x" * 5000: "y"}]
)
def test_a_meta_file_of_strange_files(sound: Path, tmp_path: Path, files: Any) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "x"))
    (folder / f"{folder.name}.meta.json").write_text(json.dumps({"files": files}))
    kinds = {violation.kind for violation in check(folder)}
    assert kinds == {"file of the meta file that is missing", "file that the meta file does not know"}
    (folder / f"{folder.name}.meta.json").write_text("[" * 100_000)
    assert "meta file without the SHA-256 of the files" in {violation.kind for violation in check(folder)}
