//! Header plus extension headers → member.

use super::header::Header;
use super::{number, padded, pax};
use crate::attributes::{Mtime, Xattr};
use crate::error::EntryProblem;
use crate::name::Printable;

/// One archive member, all its extension headers applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// As spelled.
    pub(crate) path: Vec<u8>,
    /// Position of the member's first header, extension headers included.
    pub(crate) offset: u64,
    pub(crate) kind: MemberKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Mtime,
    /// Bytes of data that follow; 0 for all kinds but files.
    pub(crate) size: u64,
    /// In the order of the records.
    pub(crate) xattrs: Vec<Xattr>,
    /// Attributes that have no form here, each a phrase for people.
    pub(crate) ignored: Vec<String>,
}

impl Member {
    /// Bytes of names, targets and xattrs.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let xattrs = self.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len());
        let target = match &self.kind {
            MemberKind::Hardlink(target) | MemberKind::Symlink(target) => target.len(),
            _ => 0,
        };
        (self.path.len() + target + xattrs.sum::<usize>()) as u64
    }
}

/// The member types that a layer may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Directory,
    Hardlink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
}

/// The extension headers that were read for the member to come.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    offset: Option<u64>,
    gnu_path: Option<Vec<u8>>,
    gnu_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// The records of an `x` header that matter here.
#[derive(Debug, Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Mtime>,
    major: Option<u32>,
    minor: Option<u32>,
    xattrs: Vec<Xattr>,
    ignored: Vec<String>,
    sparse: bool,
}

impl Extensions {
    pub(crate) fn start(&mut self, offset: u64) {
        self.offset.get_or_insert(offset);
    }

    pub(crate) fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// Whether no member is being described.
    pub(crate) fn is_empty(&self) -> bool {
        self.gnu_path.is_none() && self.gnu_link.is_none() && self.pax.is_none()
    }

    /// The path of the member to come, if an extension header gives one.
    pub(crate) fn path(&self) -> Option<&[u8]> {
        self.pax.as_ref().and_then(|pax| pax.path.as_deref()).or(self.gnu_path.as_deref())
    }

    /// Takes the data of an extension header.
    pub(crate) fn add(&mut self, typeflag: u8, data: &[u8]) -> Result<(), EntryProblem> {
        let twice = |what| Err(EntryProblem::Extension(format!("two {what} for one entry")));
        match typeflag {
            b'L' if self.gnu_path.is_some() => twice("GNU long names"),
            b'K' if self.gnu_link.is_some() => twice("GNU long links"),
            b'x' if self.pax.is_some() => twice("PAX headers"),
            b'L' => {
                self.gnu_path = Some(until_nul(data));
                Ok(())
            }
            b'K' => {
                self.gnu_link = Some(until_nul(data));
                Ok(())
            }
            b'x' => {
                let pax = self.pax.insert(Pax::default());
                let mut result = Ok(());
                for (key, value) in pax::records(data)? {
                    // The name may come after what is wrong.
                    result = result.and(pax.set(key, value));
                }
                result
            }
            _ => {
                if self.is_empty() {
                    self.offset = None;
                }
                check_global(data)
            }
        }
    }

    /// Joins the extension headers with the header that they extend.
    pub(crate) fn member(self, header: &Header<'_>, offset: u64) -> Result<Member, EntryProblem> {
        let pax = self.pax.unwrap_or_default();
        if pax.sparse || header.typeflag() == b'S' {
            return Err(EntryProblem::Sparse);
        }
        let path = merge("path", pax.path, self.gnu_path)?.unwrap_or_else(|| header.path());
        let link =
            merge("linkpath", pax.link, self.gnu_link)?.unwrap_or_else(|| header.link().to_vec());
        let size = pax.size.map_or_else(|| header.size(), Ok)?;
        header.verify_numbers()?;
        let kind = kind(header, &path, link, size, (pax.major, pax.minor))?;
        if size > 0 && kind != MemberKind::File {
            return Err(EntryProblem::UnexpectedData(size));
        }
        if padded(size).is_none() {
            return Err(EntryProblem::Number { field: "size".to_owned() });
        }
        let owner = |field: &str, id: u32| match id {
            // The system calls take this value for "leave as it is".
            u32::MAX => Err(EntryProblem::Number { field: field.to_owned() }),
            id => Ok(id),
        };
        Ok(Member {
            path,
            offset,
            kind,
            mode: header.mode()?,
            uid: owner("uid", pax.uid.map_or_else(|| header.uid(), Ok)?)?,
            gid: owner("gid", pax.gid.map_or_else(|| header.gid(), Ok)?)?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Mtime { secs: header.mtime()?, nanos: 0 },
            },
            size,
            xattrs: pax.xattrs,
            ignored: pax.ignored,
        })
    }
}

impl Pax {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), EntryProblem> {
        let number = || EntryProblem::Number { field: Printable(key).to_string() };
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            let (name, value) = (pax::decode_xattr_name(name), value.to_vec());
            self.xattrs.push(Xattr { name, value });
            return Ok(());
        }
        if key.starts_with(b"GNU.sparse.") || key == b"SCHILY.realsize" {
            self.sparse = true;
            return Ok(());
        }
        if value.is_empty() && CHANGING.contains(&key) {
            // POSIX: the record takes back an earlier one. Tools take it for an empty name, or for 0.
            let key = Printable(key);
            return Err(EntryProblem::Extension(format!("its record `{key}` is empty")));
        }
        let id = || {
            let id = number::decimal(value).and_then(|id| u32::try_from(id).ok());
            id.map(Some).ok_or_else(number)
        };
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number::decimal(value).ok_or_else(number)?),
            b"uid" => self.uid = id()?,
            b"gid" => self.gid = id()?,
            b"SCHILY.devmajor" => self.major = id()?,
            b"SCHILY.devminor" => self.minor = id()?,
            b"mtime" => self.mtime = Some(number::time(value).ok_or_else(number)?),
            b"SCHILY.acl.access" | b"SCHILY.acl.default" | b"SCHILY.acl.ace" => self
                .ignored
                .push(format!("`{}`: an access control list in text form", Printable(key))),
            b"RHT.security.selinux" => {
                self.ignored.push("`RHT.security.selinux`: a label of another host".to_owned());
            }
            // Names of users, further times, comments, vendors' own: nothing that the tree shows.
            _ => {}
        }
        Ok(())
    }
}

/// Keywords that change an entry.
const CHANGING: [&[u8]; 9] = [
    b"path",
    b"linkpath",
    b"size",
    b"uid",
    b"gid",
    b"mtime",
    b"SCHILY.devmajor",
    b"SCHILY.devminor",
    b"SCHILY.realsize",
];

/// Refuses global headers that would change entries: some tools apply them, others do not.
fn check_global(data: &[u8]) -> Result<(), EntryProblem> {
    const PREFIXES: [&[u8]; 2] = [b"SCHILY.xattr.", b"GNU.sparse."];
    for (key, _) in pax::records(data)? {
        let changes =
            CHANGING.contains(&key) || PREFIXES.iter().any(|start| key.starts_with(start));
        if changes {
            return Err(EntryProblem::GlobalOverride(Printable(key).to_string()));
        }
    }
    Ok(())
}

fn merge(
    what: &str,
    pax: Option<Vec<u8>>,
    gnu: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, EntryProblem> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            Err(EntryProblem::Extension(format!("the PAX and the GNU form of its {what} differ")))
        }
        (Some(name), _) | (None, Some(name)) => Ok(Some(name)),
        (None, None) => Ok(None),
    }
}

fn kind(
    header: &Header<'_>,
    path: &[u8],
    link: Vec<u8>,
    size: u64,
    pax_device: (Option<u32>, Option<u32>),
) -> Result<MemberKind, EntryProblem> {
    let typeflag = header.typeflag();
    if !header.knows_typeflag() {
        return Err(EntryProblem::Type(typeflag));
    }
    let device = || {
        let (major, minor) = header.device()?;
        let (major, minor) = (pax_device.0.unwrap_or(major), pax_device.1.unwrap_or(minor));
        // Linux: twelve and twenty bits.
        if major > 0xfff || minor > 0xf_ffff {
            return Err(EntryProblem::Number { field: "device number".to_owned() });
        }
        Ok((major, minor))
    };
    Ok(match typeflag {
        // Archives older than typeflag 5 mark directories by a slash, and all tools honour that.
        0 | b'0' | b'7' if path.ends_with(b"/") => {
            if size > 0 {
                return Err(EntryProblem::Path("a file's path ends with a slash"));
            }
            MemberKind::Directory
        }
        0 | b'0' | b'7' => MemberKind::File,
        b'1' => MemberKind::Hardlink(link),
        b'2' => MemberKind::Symlink(link),
        b'3' => {
            let (major, minor) = device()?;
            MemberKind::CharDevice { major, minor }
        }
        b'4' => {
            let (major, minor) = device()?;
            MemberKind::BlockDevice { major, minor }
        }
        b'5' => MemberKind::Directory,
        b'6' => MemberKind::Fifo,
        other => return Err(EntryProblem::Type(other)),
    })
}

fn until_nul(data: &[u8]) -> Vec<u8> {
    data.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}
