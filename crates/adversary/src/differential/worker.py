"""Reads archives with tarfile and applies the rules of docs/formats/layer.md to what it reads.

Takes the path of an archive a line on standard input and answers with a line of JSON: either an error, or
every path with what it is. Made to agree with Kiln's reader, and to share nothing with it.
"""

import hashlib
import json
import os
import re
import sys
import tarfile


class Refused(Exception):
    pass


def data_of(name):
    return name.encode("utf-8", "surrogateescape")


def parts_of(name):
    parts = [part for part in data_of(name).split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise Refused("dot-dot")
    if any(len(part) > 255 for part in parts):
        raise Refused("long")
    return parts


def directory(implied):
    # "names" are those of its entries, "delayed" those by which symlinks that lead out were put into it.
    return {"kind": "d", "children": {}, "implied": implied, "names": set(), "delayed": set()}


def leads_out(target):
    return target.startswith(b"/") or b".." in target.split(b"/")


def spelled(name):
    return data_of(name).strip(b"/")


def habits(root, path, node):
    """Why attributes of a directory may be others where they are set at the end, by names."""
    if not node["implied"] and node["delayed"] - node["names"]:
        yield path, "a symlink that leads out put into a directory by another name"
    for name in node["names"]:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        try:
            at = resolve(root, parts, set())
        except Refused:
            at = None
        if at != path:
            yield path, LOST
            if at is not None:
                yield at, LOST


LOST = "a directory whose name leads elsewhere at the end"


def resolve(root, parts, features):
    """Where a directory is: symlinks are followed within the root, what is not there is a directory."""
    way = [(b"", root)]
    todo = [(part, False) for part in parts]
    followed = 0
    while todo:
        part, of_symlink = todo.pop(0)
        if part == b"..":
            if len(way) > 1:
                way.pop()
            continue
        at = way[-1][1]
        child = at["children"].get(part) if at is not None else None
        if child is None:
            if of_symlink:
                features.add("below a symlink to nothing")
                if len(part) > 255 or part.startswith(b".wh."):
                    raise Refused("no name")
            way.append((part, None))
        elif child["kind"] == "d":
            way.append((part, child))
        elif child["kind"] == "l":
            followed += 1
            if followed > 40:
                raise Refused("loop")
            target = bytes.fromhex(child["target"])
            names = [name for name in target.split(b"/") if name not in (b"", b".")]
            if leads_out(target):
                features.add("below a symlink that leads out")
            if target.startswith(b"/"):
                del way[1:]
            todo[:0] = [(name, True) for name in names]
        else:
            raise Refused("below")
    return [name for name, _ in way[1:]]


def walk(root, parts):
    at = root
    for part in parts:
        child = at["children"].get(part)
        if child is None:
            child = at["children"][part] = directory(True)
        at = child
    return at


def find(root, parts):
    at = root
    for part in parts:
        at = at["children"].get(part)
        if at is None:
            raise Refused("no target")
    return at


def attributes(member):
    xattrs = {}
    for key, value in member.pax_headers.items():
        if key.startswith("SCHILY.xattr.user."):
            name = key[len("SCHILY.xattr."):].replace("%3D", "=").replace("%25", "%")
            xattrs[data_of(name).hex()] = data_of(value).hex()
    return {
        "mode": member.mode & 0o7777,
        "uid": member.uid,
        "gid": member.gid,
        "mtime": float(member.mtime),
        "xattrs": xattrs,
    }


def peculiarities(archive, member):
    """What tarfile itself does differently."""
    at = archive.fileobj.tell()
    archive.fileobj.seek(member.offset_data - 512)
    header = archive.fileobj.read(512)
    archive.fileobj.seek(at)
    if header[257:263] != b"ustar\0" and header[345:500].strip(b"\0"):
        yield "prefix in a header that is not of POSIX"
    if header[156:157] == b"\0" and member.isdir() and member.offset != member.offset_data - 512:
        yield "slash in a name that an extended header replaces"


def has_records_in_padding(archive, member):
    at = archive.fileobj.tell()
    archive.fileobj.seek(member.offset)
    extension = archive.fileobj.read(512)
    padding = b""
    if extension[156:157] == b"x":
        size = tarfile.nti(extension[124:136])
        padding = archive.fileobj.read(-(-size // 512) * 512)[size:]
    archive.fileobj.seek(at)
    return re.match(rb"\d+ [^=]+=", padding) is not None


def read(path):
    root = directory(True)
    features = set()
    with tarfile.open(path, "r:", errors="surrogateescape", encoding="utf-8") as archive:
        for member in archive:
            name = member.name
            features.update(peculiarities(archive, member))
            if not name:
                raise Refused("empty")
            parts = parts_of(name)
            if member.type not in tarfile.SUPPORTED_TYPES:
                raise Refused("type")
            if member.type == tarfile.GNUTYPE_SPARSE or member.sparse is not None:
                raise Refused("sparse")
            is_directory = member.isdir()
            if member.isreg() and name.endswith("/"):
                if member.size:
                    raise Refused("slash")
                is_directory = True
            if not parts:
                if not is_directory:
                    raise Refused("root")
                root.update(attributes(member), implied=False)
                root["names"].add(spelled(name))
                continue
            parts = resolve(root, parts[:-1], features) + parts[-1:]
            parent = walk(root, parts[:-1])
            old = parent["children"].get(parts[-1])
            if old is not None and old["kind"] == "d" and not is_directory:
                features.add("directory replaced")
            if old is not None and old["kind"] == "l" and leads_out(bytes.fromhex(old["target"])):
                features.add("symlink that leads out replaced")
            if is_directory:
                new = old if old is not None and old["kind"] == "d" else directory(False)
                new.update(attributes(member), implied=False)
                new["names"].add(spelled(name))
            elif member.islnk():
                target = parts_of(member.linkname)
                if target:
                    target = resolve(root, target[:-1], features) + target[-1:]
                if target == parts:
                    raise Refused("itself")
                new = find(root, target)
                if new["kind"] == "d":
                    raise Refused("link to directory")
            elif member.issym():
                new = {"kind": "l", "target": data_of(member.linkname).hex(), **attributes(member)}
                if leads_out(data_of(member.linkname)):
                    parent["delayed"].add(spelled(name.rpartition("/")[0]))
            elif member.ischr() or member.isblk():
                kind = "c" if member.ischr() else "b"
                if kind == "c" and not member.devmajor and not member.devminor:
                    # Dropped: overlayfs would take it for a whiteout.
                    features.add("character device 0:0")
                    continue
                new = {"kind": kind, "device": [member.devmajor, member.devminor]}
                new.update(attributes(member))
            elif member.isfifo():
                new = {"kind": "p", **attributes(member)}
            else:
                content = archive.extractfile(member).read()
                if len(content) != member.size:
                    raise Refused("truncated")
                new = {"kind": "f", "size": member.size, **attributes(member)}
                new["content"] = hashlib.sha256(content).hexdigest()
            if not member.islnk():
                new["padding"] = has_records_in_padding(archive, member)
            parent["children"][parts[-1]] = new
    found = {}
    names = {}
    notes = []
    stack = [(b"", root)]
    while stack:
        path, node = stack.pop()
        hidden = ("children", "names", "delayed", "padding")
        shown = {key: value for key, value in node.items() if key not in hidden}
        if node.get("padding"):
            notes.append((path.split(b"/")[1:], "records behind the end of an extended header"))
        if node["kind"] == "d":
            notes.extend(habits(root, path.split(b"/")[1:], node))
        else:
            names.setdefault(id(node), []).append(path)
        found[path] = shown
        for part, child in node.get("children", {}).items():
            stack.append((path + b"/" + part, child))
    for group in names.values():
        for path in group:
            found[path]["same"] = min(group).hex()
    return {
        "entries": {path.hex(): node for path, node in found.items()},
        "features": sorted(features),
        "habits": sorted(
            (b"".join(b"/" + part for part in parts).hex(), why) for parts, why in notes
        ),
    }


def main():
    print(sys.version.split()[0], flush=True)
    for line in sys.stdin:
        try:
            answer = read(line.rstrip("\n"))
        except Refused as refused:
            answer = {"refused": "rule: " + str(refused)}
        except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError) as error:
            answer = {"refused": type(error).__name__ + ": " + str(error)}
        except Exception as error:
            answer = {"refused": "crash: " + type(error).__name__ + ": " + str(error)}
        print(json.dumps(answer), flush=True)


main()
