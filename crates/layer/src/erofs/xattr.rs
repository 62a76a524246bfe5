//! Inline xattrs: a 12-byte header, then entries padded to four bytes.

use super::{Damage, u16_at};
use crate::attributes::Xattr;

/// `struct erofs_xattr_ibody_header` without shared xattrs.
const HEADER: usize = 12;
/// `struct erofs_xattr_entry` before name and value.
const ENTRY: usize = 4;

/// Name spaces, each with the number that stands for it. The two ACL names have no suffix.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// Bytes that `xattrs` take after an inode; 0 for none.
pub(crate) fn encoded_size(xattrs: &[Xattr]) -> Option<usize> {
    if xattrs.is_empty() {
        return Some(0);
    }
    let mut size = HEADER;
    for xattr in xattrs {
        let (_, suffix) = split(&xattr.name)?;
        if suffix.len() > usize::from(u8::MAX) || xattr.value.len() > usize::from(u16::MAX) {
            return None;
        }
        size += (ENTRY + suffix.len() + xattr.value.len()).next_multiple_of(4);
    }
    (count(size).is_some()).then_some(size)
}

/// `i_xattr_icount` for an area of `size` bytes, if it fits the field.
pub(crate) fn count(size: usize) -> Option<u16> {
    if size == 0 { Some(0) } else { u16::try_from((size - HEADER) / 4 + 1).ok() }
}

/// The area's size for an `i_xattr_icount`.
pub(crate) fn size_of_count(count: u16) -> usize {
    if count == 0 { 0 } else { HEADER + (usize::from(count) - 1) * 4 }
}

/// Appends the area. The caller has had [`encoded_size`] accept it.
pub(crate) fn encode(xattrs: &[Xattr], out: &mut Vec<u8>) {
    if xattrs.is_empty() {
        return;
    }
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    for xattr in xattrs {
        let (index, suffix) = split(&xattr.name).expect("encoded_size accepted the name");
        out.push(suffix.len() as u8);
        out.push(index);
        out.extend_from_slice(&(xattr.value.len() as u16).to_le_bytes());
        out.extend_from_slice(suffix);
        out.extend_from_slice(&xattr.value);
        out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    }
}

/// Reads an area.
pub(crate) fn decode(area: &[u8]) -> Result<Vec<Xattr>, Damage> {
    let mut xattrs = Vec::new();
    let Some(mut rest) = area.get(HEADER..) else { return Ok(xattrs) };
    if area[4] != 0 {
        return Err(Damage::new("an inode has shared xattrs"));
    }
    while !rest.is_empty() {
        let value_len = usize::from(u16_at(rest, 2)?);
        let (name_len, index) = (usize::from(rest[0]), rest[1]);
        let entry = ENTRY + name_len + value_len;
        let prefix = PREFIXES.iter().find(|(number, _)| *number == index);
        let (Some((_, prefix)), Some(data)) = (prefix, rest.get(ENTRY..entry)) else {
            return Err(Damage::new("an xattr has no valid name or runs over its inode's area"));
        };
        let (suffix, value) = data.split_at(name_len);
        xattrs.push(Xattr { name: [prefix, suffix].concat(), value: value.to_vec() });
        rest = rest.get(entry.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(xattrs)
}

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix)| {
        let suffix = name.strip_prefix(*prefix)?;
        (suffix.is_empty() != prefix.ends_with(b".")).then_some((*index, suffix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattr(name: &str, value: &[u8]) -> Xattr {
        Xattr { name: name.into(), value: value.to_vec() }
    }

    #[test]
    fn encode_and_decode() {
        for xattrs in [
            vec![],
            vec![xattr("user.a", b"")],
            vec![
                xattr("security.capability", b"\x01\0\0\x02\n\0"),
                xattr("system.posix_acl_access", b"\x02\0\0\0"),
                xattr("system.posix_acl_default", b"\x02\0\0\0"),
                xattr("trusted.overlay.opaque", b"y"),
                xattr("user.long", &[7; 65_535]),
            ],
        ] {
            let mut area = Vec::new();
            encode(&xattrs, &mut area);
            assert_eq!(encoded_size(&xattrs), Some(area.len()));
            assert_eq!(size_of_count(count(area.len()).unwrap()), area.len());
            assert_eq!(decode(&area).unwrap(), xattrs);
        }
    }

    #[test]
    fn refuse_what_has_no_form() {
        for (name, len) in [
            ("system.nfs4_acl", 1),
            ("system.posix_acl_access2", 1),
            ("user.", 1),
            ("user", 1),
            ("user.x", 65_536),
        ] {
            assert_eq!(encoded_size(&[xattr(name, &vec![0; len])]), None, "{name}");
        }
    }
}
