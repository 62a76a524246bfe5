//! Which xattrs a layer may set, and to what.

use crate::attributes::Xattr;
use crate::error::EntryProblem;
use crate::name::Printable;

/// Longest name that Linux takes.
const NAME_MAX: usize = 255;

/// Why an xattr is not taken over.
pub(super) fn reason_to_drop(xattr: &Xattr) -> Option<&'static str> {
    const PLAIN: [&[u8]; 2] = [b"user.", b"security."];
    if xattr.name.starts_with(b"trusted.") {
        return Some("a layer may not set attributes that the host trusts");
    }
    let suffix = PLAIN.iter().find_map(|prefix| xattr.name.strip_prefix(*prefix));
    let known = match suffix {
        Some(suffix) => !suffix.is_empty() && xattr.name.len() <= NAME_MAX,
        None => matches!(&xattr.name[..], b"system.posix_acl_access" | b"system.posix_acl_default"),
    };
    if !known || xattr.name.contains(&0) {
        return Some("its name space has no form in the index");
    }
    (xattr.value.len() > usize::from(u16::MAX)).then_some("its value is longer than 65535 bytes")
}

/// Refuses values of which the kernel would make errors when the file is used: `setxattr` takes none of them.
pub(super) fn check(xattrs: &[Xattr], directory: bool) -> Result<(), EntryProblem> {
    for xattr in xattrs {
        let problem = match &xattr.name[..] {
            b"security.capability" => capability_problem(&xattr.value),
            b"system.posix_acl_access" => acl_problem(&xattr.value),
            b"system.posix_acl_default" if !directory => {
                Some("is for directories, and the entry is none")
            }
            b"system.posix_acl_default" => acl_problem(&xattr.value),
            _ => None,
        };
        if let Some(problem) = problem {
            let name = Printable(&xattr.name).to_string();
            return Err(EntryProblem::Xattr { name, problem });
        }
    }
    Ok(())
}

/// `struct vfs_cap_data` and `vfs_ns_cap_data` (`include/uapi/linux/capability.h`), versions 2 and 3.
fn capability_problem(value: &[u8]) -> Option<&'static str> {
    match (value, value.len()) {
        ([_, _, _, 2, ..], 20) | ([_, _, _, 3, ..], 24) => None,
        _ => Some("is not a file capability of version 2 or 3"),
    }
}

/// `struct posix_acl_xattr_header` and its entries, in the order that the kernel wants.
fn acl_problem(value: &[u8]) -> Option<&'static str> {
    const MALFORMED: Option<&str> = Some("is not an access control list of version 2");
    const INVALID: Option<&str> = Some("is an access control list that has no meaning");
    let Some(entries) = value.strip_prefix(&[2, 0, 0, 0]) else { return MALFORMED };
    if entries.is_empty() {
        return None;
    }
    if !entries.len().is_multiple_of(8) {
        return MALFORMED;
    }
    // Owner, users, group, groups, mask, others.
    let mut before = 0_u16;
    let (mut named, mut masked) = (false, false);
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        if permissions > 7 {
            return INVALID;
        }
        let follows = match tag {
            0x01 => before == 0,
            0x02 => matches!(before, 0x01 | 0x02),
            0x04 => matches!(before, 0x01 | 0x02),
            0x08 => matches!(before, 0x04 | 0x08),
            0x10 => matches!(before, 0x04 | 0x08),
            0x20 => matches!(before, 0x04 | 0x08 | 0x10),
            _ => return MALFORMED,
        };
        if !follows {
            return INVALID;
        }
        named |= matches!(tag, 0x02 | 0x08);
        masked |= tag == 0x10;
        before = tag;
    }
    if before == 0x20 && (masked || !named) { None } else { INVALID }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u8, u8)]) -> Vec<u8> {
        let entries = entries.iter().flat_map(|(tag, perm)| [*tag, 0, *perm, 0, 0, 0, 0, 0]);
        [2, 0, 0, 0].into_iter().chain(entries).collect()
    }

    #[test]
    fn capabilities() {
        for (value, good) in [
            (&[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], true),
            (&[[1, 0, 0, 3], [0; 4], [0; 4], [0; 4], [0; 4], [0; 4]].concat(), true),
            (&[[1, 0, 0, 3], [0; 4], [0; 4], [0; 4], [0; 4]].concat(), false),
            (&[[1, 0, 0, 1], [0; 4], [0; 4]].concat(), false),
            (b"", false),
        ] {
            assert_eq!(capability_problem(value).is_none(), good, "{value:?}");
        }
    }

    #[test]
    fn access_control_lists() {
        for (value, good) in [
            (acl(&[]), true),
            (acl(&[(1, 6), (4, 4), (32, 4)]), true),
            (acl(&[(1, 6), (2, 7), (2, 1), (4, 4), (8, 7), (16, 7), (32, 0)]), true),
            (acl(&[(1, 6), (4, 4), (16, 7), (32, 4)]), true),
            (acl(&[(1, 6), (2, 7), (4, 4), (32, 4)]), false),
            (acl(&[(1, 8), (4, 4), (32, 4)]), false),
            (acl(&[(1, 6), (32, 4), (4, 4)]), false),
            (acl(&[(1, 6), (4, 4)]), false),
            (acl(&[(1, 6), (1, 6), (4, 4), (32, 4)]), false),
            (acl(&[(3, 6)]), false),
            (b"\x02\0\0\0junk".to_vec(), false),
            (b"\x01\0\0\0".to_vec(), false),
            (b"".to_vec(), false),
        ] {
            assert_eq!(acl_problem(&value).is_none(), good, "{value:?}");
        }
    }
}
