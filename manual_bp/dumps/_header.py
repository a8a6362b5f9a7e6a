"""The C header of a fixture: sizes as constants, and functions that read and write its files (C99 and C++)."""

from __future__ import annotations

import math
import re

from manual_bp.dumps._manifest import Entry, Manifest, Shape

_TYPES = {"float32": "float", "float64": "double", "int64": "int64_t", "uint8": "uint8_t"}

_FUNCTIONS = """
/* All of FOLDER/given/NAME.bin, in new memory, and its number of elements; ends the program if it cannot be read. */
static inline void *mbp_read(const char *folder, const char *name, size_t size, size_t *count)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/given/%s.bin", folder, name);
    FILE *file = fopen(path, "rb");
    long bytes = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    void *data = bytes >= 0 ? malloc((size_t)bytes + 1) : NULL;
    if (!data || fseek(file, 0, SEEK_SET) != 0 || fread(data, 1, (size_t)bytes, file) != (size_t)bytes) {
        fprintf(stderr, "cannot read %s\\n", path);
        exit(2);
    }
    fclose(file);
    *count = (size_t)bytes / size;
    return data;
}

/* A given array. */
static inline mbp_real *mbp_given(const char *folder, const char *name, size_t *count)
{
    return (mbp_real *)mbp_read(folder, name, sizeof(mbp_real), count);
}

/* Class indices, where they are the targets. */
static inline int64_t *mbp_given_int64(const char *folder, const char *name, size_t *count)
{
    return (int64_t *)mbp_read(folder, name, sizeof(int64_t), count);
}

/* Writes your own numbers for NAME to FOLDER/candidate/NAME.bin. */
static inline void mbp_report(const char *folder, const char *name, const mbp_real *data, size_t count)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/candidate/%s.bin", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, sizeof(mbp_real), count, file) != count || fclose(file) != 0) {
        fprintf(stderr, "cannot write %s\\n", path);
        exit(2);
    }
}
"""


def header(manifest: Manifest) -> str:
    """The text of ``fixture.h``."""
    title = f"{manifest.network}, probe {manifest.probe}, {manifest.dtype}, batch {manifest.batch}"
    parts = [
        f"/* {_comment(title)}. Written by {_comment(manifest.written_by)}; do not edit. */",
        "#ifndef MANUAL_BP_FIXTURE_H",
        "#define MANUAL_BP_FIXTURE_H",
        "",
        "#include <stdint.h>",
        "#include <stdio.h>",
        "#include <stdlib.h>",
        "",
        f"typedef {_TYPES[manifest.dtype]} mbp_real;",
        "",
        f"#define MBP_BATCH {manifest.batch}",
        "",
        "/* given/NAME.bin: what the program reads */",
        *(_constant(entry) for entry in manifest.given),
        "",
        "/* candidate/NAME.bin: what the program writes */",
        *(_constant(entry) for entry in manifest.wanted),
        _FUNCTIONS,
        "#endif",
        "",
    ]
    return "\n".join(parts)


def _constant(entry: Entry) -> str:
    """``#define MBP_Z1_WEIGHT 9  /* z1.weight: double [1][1][3][3] (OIHW) */``."""
    name = "MBP_" + re.sub(r"\W", "_", entry.name, flags=re.ASCII).upper()
    layout = f" ({entry.layout})" if entry.layout else ""
    what = f"{entry.name}: {_TYPES.get(entry.dtype, entry.dtype)}{_brackets(entry.shape)}{layout}"
    return f"#define {name} {math.prod(entry.shape)}  /* {_comment(what)} */"


def _brackets(shape: Shape) -> str:
    return "".join(f"[{n}]" for n in shape) and " " + "".join(f"[{n}]" for n in shape)


def _comment(text: str) -> str:
    return text.replace("*/", "* /").replace("\n", " ").replace("\\", "/")
