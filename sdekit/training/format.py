r"""The bytes of a checkpoint: safetensors, with one JSON text beside the tensors and a digest.

    8 bytes    the length h of the header, little endian
    h bytes    {"__metadata__": {"sdekit": TEXT}, NAME: {dtype, shape, data_offsets}, ...}
    the rest   the tensors, one after another, no gaps

TEXT is a JSON object that begins with the SHA-256 of the whole file, computed with the digest's 64
characters set to 0: a change of any bit is found. Nothing in the file is executed, and what could
be (a pickle, or an archive that may hold one) is refused by its first bytes, under any name.

Reference: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import pickletools
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sdekit._check import shown
from sdekit.errors import CheckpointError

__all__ = ["FORMAT", "decode", "encode"]

FORMAT = 2  # the version of the layout that this code writes; 1 had no moments of the data
_NAME = "sdekit"
_BLANK = "0" * 64
_START = rb"{\"sha256\":\""  # of the text, as it stands in the header: JSON inside JSON
_MARK = b'"sdekit":"' + _START
_HEADER_LIMIT = 2**24  # bytes: about 100,000 tensors; bounds the memory that a bad header can take
_SCAN = 2**16  # bytes searched for the end of a text pickle
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY")


def encode(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """The file's bytes, digest included.

    Args:
        tensors: by name; each is stored on its own, whatever memory it shares.
        meta: a JSON object with finite numbers.

    Raises:
        CheckpointError: something in `meta` is no JSON, or a tensor's type cannot be stored.
    """
    empty = {k: [str(v.dtype), list(v.shape)] for k, v in tensors.items() if v.numel() == 0}
    stored = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in tensors.items()
        if name not in empty
    }
    content = {"sha256": _BLANK, "format": FORMAT, "empty": empty, "content": meta, "pad": ""}
    try:
        for pad in ("", " " * 8):
            content["pad"] = pad
            text = json.dumps(content, separators=(",", ":"), allow_nan=False)
            data = bytearray(safetensors.torch.save(stored, {_NAME: text}))
            if data[0] != 0x80:  # the first byte of a pickle, which one flipped bit must not make
                break
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"the checkpoint's content cannot be stored: {error}") from error
    at = _digest_place(data)
    if at is None or int.from_bytes(data[:8], "little") > _HEADER_LIMIT:
        raise CheckpointError(f"too much for one checkpoint: {len(tensors)} tensors")
    data[at : at + 64] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def decode(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON object of a file's bytes.

    Args:
        data: the whole file.
        name: the file's name, for messages.

    Raises:
        CheckpointError: "unsafe": a pickle or an archive; "corrupt": damaged, cut short, or not
            what was written; "incompatible": safetensors that sdekit did not write; "version":
            written by a newer sdekit.
    """
    if data[8:9] != b"{":
        if _may_execute(data):
            raise CheckpointError(
                f"{name} is a pickle or may hold one: loading it could execute code, "
                "and sdekit never does; checkpoints are safetensors",
                kind="unsafe",
            )
        raise _corrupt(name, f"its {len(data)} bytes are not a safetensors file")
    header = _header(data, name)
    text = header.get("__metadata__", {}).get(_NAME)
    at = _digest_place(data)
    if at is None or text is None:
        length = int.from_bytes(data[:8], "little")
        if text is None and data.find(_START, 8, 8 + length) < 0:  # one flipped bit cannot do that
            raise CheckpointError(f"{name} was not written by sdekit", kind="incompatible")
        raise _corrupt(name, "it has no digest")
    blank = hashlib.sha256(data[:at])
    blank.update(_BLANK.encode())
    blank.update(memoryview(data)[at + 64 :])
    if blank.hexdigest().encode() != data[at : at + 64]:
        raise _corrupt(name, "its content does not match its digest")
    content = _json(text, name)
    version = content.get("format")
    if not isinstance(version, int) or version < 1:
        raise _corrupt(name, f"its format version is {shown(version)}")
    if version > FORMAT:
        raise CheckpointError(
            f"{name} has format version {version}; this sdekit reads up to {FORMAT}: upgrade it",
            kind="version",
        )
    try:
        tensors = safetensors.torch.load(data)
        for key, (dtype, shape) in content["empty"].items():
            if math.prod(shape):  # memory for it would be asked for before anything is compared
                raise ValueError(f"{shown(key)} of shape {shown(shape)} is not empty")
            tensors[key] = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
        meta = dict(content["content"])
    except Exception as error:  # whatever a valid digest over invalid content leads to
        raise _corrupt(name, str(error)) from error
    return dict(sorted(tensors.items())), meta  # safetensors returns them in no order


def _corrupt(name: str, why: str) -> CheckpointError:
    return CheckpointError(f"{name} is damaged or incomplete: {why}", kind="corrupt")


def _digest_place(data: bytes | bytearray) -> int | None:
    """Where the digest's 64 characters begin; None unless the header has one place for them."""
    end = 8 + int.from_bytes(data[:8], "little")
    first = data.find(_MARK, 8, end)
    if first < 0 or data.find(_MARK, first + 1, end) >= 0 or first + len(_MARK) + 64 > end:
        return None
    return first + len(_MARK)


def _json(text: str | bytes, name: str) -> dict[str, Any]:
    """A JSON object without duplicate keys or numbers that are not finite."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key occurs twice")
        return found

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        found = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise _corrupt(name, f"its header is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise _corrupt(name, "its header is not a JSON object")
    return found


def _header(data: bytes, name: str) -> dict[str, Any]:
    """The header, checked: the tensors fill the rest of the file, in order, without overlap."""
    length = int.from_bytes(data[:8], "little")
    if length > min(_HEADER_LIMIT, len(data) - 8):
        raise _corrupt(name, f"it claims a header of {length} bytes in a file of {len(data)}")
    header = _json(data[8 : 8 + length], name)
    meta = header.get("__metadata__", {})
    if not isinstance(meta, dict) or not all(isinstance(v, str) for v in meta.values()):
        raise _corrupt(name, "its metadata is not a map of texts")
    spans = []
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        try:
            shape, (begin, end) = entry["shape"], entry["data_offsets"]
            numbers = [*shape, begin, end]
            wrong = any(type(n) is not int or n < 0 for n in numbers) or end <= begin
            wrong = wrong or (end - begin) % max(math.prod(shape), 1) or not math.prod(shape)
        except (TypeError, KeyError, ValueError):
            wrong = True
        if wrong:
            raise _corrupt(name, f"the entry of tensor {shown(key)} is not valid")
        spans.append((begin, end))
    spans.sort()
    ends = [0, *(end for _, end in spans)]
    gaps = any(end != begin for end, (begin, _) in zip(ends, spans, strict=False))
    if gaps or ends[-1] != len(data) - 8 - length:
        raise _corrupt(name, "its tensors overlap, leave gaps, or do not fill the file")
    return header


def _may_execute(data: bytes) -> bool:
    """Whether these are the bytes of a pickle of any protocol, a zip, a tar or a NumPy file."""
    if data.startswith(_ARCHIVES) or data[257:262] == b"ustar":
        return True
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    try:  # protocols 0 and 1 have no mark: read the operations, which executes none of them
        return any(code.name == "STOP" for code, _, _ in itertools.islice(
            pickletools.genops(data[:_SCAN]), _SCAN))  # fmt: skip
    except Exception:  # not a pickle
        return False
