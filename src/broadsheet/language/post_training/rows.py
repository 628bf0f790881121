"""The data of a training: rows from a file, a folder or the Hugging Face Hub, in the columns that trainers take."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from broadsheet.cache import home
from broadsheet.errors import DataError, InputError, MissingDataError, MissingExtraError

try:
    import datasets
    from datasets import Dataset, DatasetDict
except ImportError:
    raise MissingExtraError("Reading training data", "language") from None

from broadsheet.language.hub import hub_or_cache

KINDS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}
"""Endings of files -> what the package datasets calls them."""
ROLES = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
"""Columns of texts that can be turns of a conversation -> whose."""
FINE_TUNING = "messages, or prompt and completion"
PREFERENCES = "prompt, chosen and rejected, or conversations in chosen and rejected"


def read_rows(data: Any, split: str | None = None, columns: Mapping[str, str] | None = None, *, chat: bool = False) -> Dataset:
    """Rows by the name of where they are.

    **Arguments:** `data`: a file (.jsonl, .json, .parquet, .csv, .arrow), a folder of such files or one that `save_to_disk`
    made, a name on the Hub, or rows themselves; `split`: which part of them, by default the only one, or `train`; `columns`:
    our name of a column -> that of the data; `chat`: texts of prompts and answers become turns of a user and an assistant.

    A name on the Hub is read from the cache on this machine where the Hub does not answer.

    **Raises:** `InputError` for what is not there, a split or column that it has not, and data without rows; `DataError` for
    a file that cannot be read; `MissingDataError` for a name that cannot be fetched.
    """
    with quiet_datasets():
        rows = data if isinstance(data, Dataset) else _read(data, split)
        rows = _renamed(rows, columns or {}, data if isinstance(data, str | Path) else "The data")
    if not len(rows):
        raise InputError(f"{data if isinstance(data, str | Path) else 'The data'} has no rows.")
    return as_chat(rows) if chat else rows


def identity(rows: Dataset) -> str:
    """SHA-256 of the rows' content and of the columns' names and types."""
    total = hashlib.sha256()
    with quiet_datasets():
        for part in rows.with_format("arrow").iter(batch_size=4096):
            plain = part.replace_schema_metadata(None).combine_chunks()
            total.update(str(plain.schema).encode())
            for batch in plain.to_batches():
                total.update(batch.serialize())
    return total.hexdigest()


def for_fine_tuning(rows: Dataset) -> Dataset:
    """The columns that fine-tuning reads: `messages`, or `prompt` and `completion`.

    **Raises:** `InputError` where they are not there.
    """
    if "messages" in rows.column_names:
        return rows.select_columns(["messages"])
    return rows.select_columns(_wanted(rows, ("prompt", "completion"), "Fine-tuning", FINE_TUNING))


def for_preferences(rows: Dataset) -> Dataset:
    """`prompt`, `chosen` and `rejected`; of whole conversations in `chosen` and `rejected` the prompt is what comes before
    their last turn, as in Tülu 3's mixture.

    **Raises:** `InputError` where they are not there, and for two conversations that do not begin alike.
    """
    _wanted(rows, ("chosen", "rejected"), "Preference optimisation", PREFERENCES)
    if isinstance(rows[0]["chosen"], list) and len(rows[0]["chosen"]) > 1:
        with quiet_datasets():
            return rows.map(_parted, with_indices=True, remove_columns=rows.column_names, load_from_cache_file=False)
    return rows.select_columns(_wanted(rows, ("prompt", "chosen", "rejected"), "Preference optimisation", PREFERENCES))


def _parted(row: dict[str, Any], number: int) -> dict[str, Any]:
    chosen, rejected = row["chosen"], row["rejected"]
    if chosen[:-1] != rejected[:-1] or not chosen or not rejected:
        raise InputError(f"Pair {number + 1}: chosen and rejected differ before their last turn.")
    return {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def for_reinforcement(rows: Dataset) -> Dataset:
    """`prompt` and all else that a reward may read; where there are `messages`, the prompt is what comes before their last
    answer.

    **Raises:** `InputError` where there is neither.
    """
    if "prompt" in rows.column_names or "messages" not in rows.column_names:
        _wanted(rows, ("prompt",), "Reinforcement learning", "prompt, or messages")
        return rows
    with quiet_datasets():
        return rows.map(_asked, remove_columns=["messages"], load_from_cache_file=False)


def for_verification(rows: Dataset, *, named: bool) -> Dataset:
    """The same with `label`, and `verifier` where none is `named` for all rows.

    **Raises:** `InputError` where they are not there.
    """
    rows = for_reinforcement(rows)
    wanted = ("label",) if named else ("label", "verifier")
    _wanted(rows, wanted, "A verifier", "prompt and label, and verifier where none is named")
    return rows


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    messages = row["messages"]
    return {"prompt": messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages}


def as_chat(rows: Dataset) -> Dataset:
    """Texts in the columns of prompts and answers as turns of a conversation; columns that are conversations stay."""
    texts = [name for name in ROLES if name in rows.column_names and isinstance(rows[0][name], str)]

    def turn(row: dict[str, Any]) -> dict[str, Any]:
        return {name: [{"role": ROLES[name], "content": row[name]}] for name in texts}

    with quiet_datasets():
        return rows.map(turn, load_from_cache_file=False) if texts else rows


def prompts_of(rows: Dataset) -> Iterator[str | list[dict[str, Any]]]:
    """What comes before the first answer in each row."""
    if "prompt" in rows.column_names:
        yield from rows["prompt"]
        return
    for messages in rows["messages"]:
        first = next((number for number, turn in enumerate(messages) if turn["role"] == "assistant"), len(messages))
        yield messages[:first]


def first_as_long(rows: Dataset, words: Any, limit: int) -> tuple[int, int] | None:
    """(row, tokens) of the first prompt with `limit` tokens or more, or None."""
    for number, prompt in enumerate(prompts_of(rows)):
        parts = [prompt] if isinstance(prompt, str) else [str(turn["content"]) for turn in prompt]
        if sum(len(part.encode()) for part in parts) + 256 < limit:  # a token has a byte or more; 256 for what a template adds
            continue
        if isinstance(prompt, str):
            ids = words(prompt)["input_ids"]
        else:
            ids = words.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        if len(ids) >= limit:
            return number, len(ids)
    return None


def _wanted(rows: Dataset, names: tuple[str, ...], who: str, said: str) -> list[str]:
    for name in names:
        if name not in rows.column_names:
            raise InputError(f"{who} takes rows with {said}; there is no {name!r} among {', '.join(rows.column_names)}.")
    return list(names)


def _read(data: Any, split: str | None) -> Dataset:
    if not isinstance(data, str | Path):
        return _listed(data)
    path = Path(data).expanduser()
    if path.is_file():
        return _file(path, split)
    if path.is_dir():
        return _folder(path, split)
    name = str(data)
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or path.suffix in KINDS:
        raise InputError(f"{name}: there is no such file or folder.")
    try:
        with hub_or_cache():
            return _part(datasets.load_dataset(name), split, name)
    except (OSError, ValueError) as error:
        raise MissingDataError(
            f"{name} is no file or folder here, and the data set of that name on the Hugging Face Hub cannot be read: "
            f"{(str(error).strip().splitlines() or [type(error).__name__])[0]}"
        ) from None


def _listed(data: Any) -> Dataset:
    rows = list(data)
    if not all(isinstance(row, Mapping) for row in rows):
        raise InputError("Rows are dictionaries of columns; the data has others.")
    try:
        return Dataset.from_list([dict(row) for row in rows])
    except (ValueError, TypeError) as error:  # pyarrow's errors are such
        raise InputError(f"The rows are not alike: {str(error).splitlines()[0]}.") from None


def _file(path: Path, split: str | None) -> Dataset:
    if path.suffix not in KINDS:
        raise InputError(f"{path}: a file of {', '.join(KINDS)} is wanted.")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty.")
    if split not in (None, "train"):
        raise InputError(f"{path} is one file, which has no split {split!r}.")
    return _loaded(KINDS[path.suffix], [path], path)


def _folder(path: Path, split: str | None) -> Dataset:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        try:
            return _part(datasets.load_from_disk(str(path)), split, str(path))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is no whole data set: {str(error).splitlines()[0]}.") from None
    found = sorted(file for file in path.rglob("*") if file.suffix in KINDS and file.stat().st_size)
    if split is not None:
        found = [file for file in found if split in (file.stem.split("-")[0], file.parent.name)]
    kinds = {KINDS[file.suffix] for file in found}
    if len(kinds) != 1:
        of = f" of the split {split!r}" if split else ""
        raise InputError(f"{path} has {'files of several kinds' if kinds else 'no data files'}{of}; one of {', '.join(KINDS)}.")
    return _loaded(kinds.pop(), found, path)


def _loaded(kind: str, files: list[Path], place: Path) -> Dataset:
    cache = str(home() / "cache" / "datasets")
    try:
        return datasets.load_dataset(kind, data_files=[str(file) for file in files], split="train", cache_dir=cache)
    except Exception as error:  # whatever its readers raise
        if kind == "json":
            for file in files:
                _check_lines(file)
        cause = error.__cause__ or error
        raise DataError(f"{place} cannot be read: {(str(cause).strip().splitlines() or [type(cause).__name__])[0]}") from None


def _check_lines(file: Path) -> None:
    """**Raises:** `DataError` for the first line that is no JSON object, and where there is none."""
    if file.suffix != ".jsonl":
        return
    whole = None
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                whole = isinstance(json.loads(line), dict)
            except (ValueError, RecursionError):
                whole = False
            if not whole:
                raise DataError(f"{file}, line {number}: a JSON object is wanted.")
    if whole is None:
        raise DataError(f"{file} has no rows.")


def _part(found: Dataset | DatasetDict, split: str | None, name: str) -> Dataset:
    if isinstance(found, Dataset):
        if split is not None:
            raise InputError(f"{name} has no splits; {split!r} was asked for.")
        return found
    wanted = split or (next(iter(found)) if len(found) == 1 else "train")
    if wanted not in found:
        raise InputError(f"{name} has no split {wanted!r}; it has {', '.join(map(str, found))}.")
    return found[wanted]


def _renamed(rows: Dataset, columns: Mapping[str, str], name: Any) -> Dataset:
    for ours, theirs in columns.items():
        if theirs not in rows.column_names:
            raise InputError(f"{name} has no column {theirs!r} (for {ours}); it has {', '.join(rows.column_names)}.")
    if len(set(columns.values())) < len(columns):
        raise InputError(f"{name}: one column is given two names: {dict(columns)}.")
    rows = rows.remove_columns([ours for ours in columns if ours in rows.column_names and ours not in columns.values()])
    return rows.rename_columns({theirs: ours for ours, theirs in columns.items() if ours != theirs})


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """Without the package's progress bars and notes."""
    bars = datasets.utils.logging.is_progress_bar_enabled()
    level = datasets.utils.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()
