"""Writes the archive of a directory with tarfile: FORMAT DIRECTORY ARCHIVE NAME..."""

import os
import sys
import tarfile

form, directory, archive, *names = sys.argv[1:]
form = {"USTAR": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "PAX": tarfile.PAX_FORMAT}[form]
os.chdir(directory)
with tarfile.open(archive, "w", format=form, encoding="utf-8", errors="surrogateescape") as out:
    for name in names:
        out.add(name)
