"""Rebuild manual_bp/data/digits.npz from the copy of the data set that scikit-learn ships.

    pip install --target /tmp/scikit-learn --no-deps scikit-learn
    python tools/build_digits.py /tmp/scikit-learn/sklearn/datasets/data/digits.csv.gz

Each line of that file is one image: 64 pixels of 0 to 16, row by row, and its label. scikit-learn itself is not
imported, only its data file read. The same input gives the same bytes (with the same zlib): members in a fixed order,
with a fixed date.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

TARGET = Path(__file__).resolve().parent.parent / "manual_bp" / "data" / "digits.npz"
EPOCH = (1980, 1, 1, 0, 0, 0)


def read(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) and labels (1797,), both uint8."""
    with gzip.open(source, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",")  # (1797, 65)
    if table.shape != (1797, 65) or not np.array_equal(table, np.floor(table)):
        raise SystemExit(f"error: {source} holds {table.shape} numbers, expected (1797, 65) integers")
    pixels, labels = table[:, :64], table[:, 64]
    if not (pixels.min() >= 0 and pixels.max() == 16 and set(labels) == set(range(10))):
        raise SystemExit(f"error: {source} holds pixels or labels out of range, expected 0..16 and 0..9")
    return pixels.reshape(-1, 8, 8).astype(np.uint8), labels.astype(np.uint8)


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz file of these arrays whose bytes depend on nothing else."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # otherwise the system that ran this script is written into the file
            archive.writestr(info, member.getvalue(), compresslevel=9)
    return whole.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description="Rebuild manual_bp/data/digits.npz.")
    parser.add_argument("source", type=Path, help="digits.csv.gz of scikit-learn")
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    options = parser.parse_args()
    images, labels = read(options.source)
    data = pack({"images": images, "labels": labels})
    part = options.output.with_suffix(".part")
    part.write_bytes(data)
    part.replace(options.output)
    print(f"{options.output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
