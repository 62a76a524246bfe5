//! The guest's users, from its own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! The C library is not asked: a static program has no name services, and a guest's would be
//! somebody else's code in the agent.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use kiln_protocol::StartErrorKind;
use rustix::fs::{Mode, OFlags};

/// The value of the system calls that means "leave as it is": nobody's id.
const NO_ID: u32 = u32::MAX;
/// The longest file of names that is read.
const LONGEST: u64 = 8 << 20;

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, the primary one first.
    pub(crate) groups: Vec<u32>,
    /// The login name; a uid that has none is fine.
    pub(crate) name: Option<OsString>,
    pub(crate) home: OsString,
}

/// A user or group that is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    #[error("user `{user}` is not in /etc/passwd of the sandbox and is no number")]
    UnknownUser { user: String },
    #[error(
        "group `{group}` of user `{user}` is not in /etc/group of the sandbox and is no number"
    )]
    UnknownGroup { user: String, group: String },
    #[error("user `{user}` is empty or has an empty group; write `name`, `uid` or `user:group`")]
    Malformed { user: String },
    #[error("id {NO_ID} of user `{user}` means nobody to the kernel")]
    Reserved { user: String },
}

impl UserError {
    pub(crate) fn kind(&self) -> StartErrorKind {
        match self {
            Self::UnknownUser { .. } => StartErrorKind::UnknownUser,
            Self::UnknownGroup { .. } => StartErrorKind::UnknownGroup,
            Self::Malformed { .. } | Self::Reserved { .. } => StartErrorKind::InvalidArgument,
        }
    }
}

/// The two files, as they are now: a guest may change them at any time.
#[derive(Debug, Default)]
pub(crate) struct Database {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl Database {
    /// Reads what is there; a root without these files has no names, which is no error. The guest can
    /// put anything in their places: what is no regular file, or is too long, has no names either.
    pub(crate) fn read(root: &Path) -> Self {
        let read = |name| read(&root.join(name)).unwrap_or_default();
        Self { passwd: read("etc/passwd"), group: read("etc/group") }
    }

    /// Resolves `name`, `uid`, `name:group` or `uid:gid`, names before numbers; `None` is uid 0.
    ///
    /// Groups of `/etc/group` that name the user are added, unless a group is given: then it is the
    /// only one, as in other container engines.
    pub(crate) fn resolve(&self, spec: Option<&str>) -> Result<Identity, UserError> {
        let spec = spec.unwrap_or("0");
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (spec, None),
        };
        if user.is_empty() || group == Some("") {
            return Err(UserError::Malformed { user: spec.to_owned() });
        }
        let number = user.parse::<u32>().ok();
        let found = self
            .users()
            .find(|entry| entry.name == user.as_bytes())
            .or_else(|| self.users().find(|entry| Some(entry.uid) == number));
        let uid = match (&found, number) {
            (Some(entry), _) => entry.uid,
            (None, Some(number)) => number,
            (None, None) => return Err(UserError::UnknownUser { user: user.to_owned() }),
        };
        let gid = match group {
            Some(group) => self.gid(group).ok_or_else(|| UserError::UnknownGroup {
                user: spec.to_owned(),
                group: group.to_owned(),
            })?,
            None => found.as_ref().map_or(0, |entry| entry.gid),
        };
        if uid == NO_ID || gid == NO_ID {
            return Err(UserError::Reserved { user: spec.to_owned() });
        }
        let mut groups = vec![gid];
        if let (None, Some(entry)) = (group, &found) {
            groups.extend(self.memberships(entry.name).filter(|other| *other != gid));
        }
        let name = match &found {
            Some(entry) => Some(entry.name.to_vec()),
            None => (uid == 0).then(|| b"root".to_vec()),
        };
        let home = found.map(|entry| entry.home.to_vec()).filter(|home| !home.is_empty());
        Ok(Identity {
            uid,
            gid,
            groups,
            name: name.map(OsString::from_vec),
            home: OsString::from_vec(home.unwrap_or_else(|| b"/".to_vec())),
        })
    }

    fn gid(&self, group: &str) -> Option<u32> {
        let named = self.groups().find(|entry| entry.name == group.as_bytes());
        named.map(|entry| entry.gid).or_else(|| group.parse().ok())
    }

    fn memberships<'a>(&'a self, user: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
        let member = move |entry: &Group<'_>| {
            entry.members.split(|byte| *byte == b',').any(|name| name == user)
        };
        self.groups().filter(member).map(|entry| entry.gid)
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.split(|byte| *byte == b'\n').filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next()?;
            let uid = number(fields.nth(1)?)?;
            let gid = number(fields.next()?)?;
            let home = fields.nth(1).unwrap_or_default();
            Some(User { name, uid, gid, home })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.split(|byte| *byte == b'\n').filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next()?;
            let gid = number(fields.nth(1)?)?;
            Some(Group { name, gid, members: fields.next().unwrap_or_default() })
        })
    }
}

/// Never waits, as opening a fifo would, and never goes on for ever, as reading a device would.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    if file.take(LONGEST + 1).read_to_end(&mut content)? as u64 > LONGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database {
            passwd: b"root:x:0:0:root:/root:/bin/sh\nbroken\n#c:x\nada:x:1000:1000:,,:/home/ada:/bin/sh\n\
                42:x:7:7::/:/bin/sh\nnohome:x:8:8::"
                .to_vec(),
            group: b"root:x:0:\nada:x:1000:\naudio:x:29:bob,ada\nvideo:x:44:adam\ndev:x:50:ada\n"
                .to_vec(),
        }
    }

    #[test]
    fn users_resolve_as_in_other_engines() {
        type Case = (Option<&'static str>, u32, Vec<u32>, Option<&'static str>, &'static str);
        let cases: [Case; 9] = [
            (None, 0, vec![0], Some("root"), "/root"),
            (Some("root"), 0, vec![0], Some("root"), "/root"),
            (Some("ada"), 1000, vec![1000, 29, 50], Some("ada"), "/home/ada"),
            (Some("1000"), 1000, vec![1000, 29, 50], Some("ada"), "/home/ada"),
            (Some("ada:audio"), 1000, vec![29], Some("ada"), "/home/ada"),
            (Some("ada:5"), 1000, vec![5], Some("ada"), "/home/ada"),
            (Some("4000"), 4000, vec![0], None, "/"),
            (Some("42"), 7, vec![7], Some("42"), "/"),
            (Some("nohome"), 8, vec![8], Some("nohome"), "/"),
        ];
        for (spec, uid, groups, name, home) in cases {
            let identity = database().resolve(spec).unwrap();
            let expected = Identity {
                uid,
                gid: groups[0],
                groups,
                name: name.map(Into::into),
                home: home.into(),
            };
            assert_eq!(identity, expected, "{spec:?}");
        }
    }

    #[test]
    fn without_files_root_and_numbers_work() {
        let empty = Database::default();
        assert_eq!(empty.resolve(None).unwrap().name, Some("root".into()));
        assert_eq!(empty.resolve(Some("12:34")).unwrap().groups, [34]);
        assert_eq!(empty.resolve(Some("root")).unwrap_err().kind(), StartErrorKind::UnknownUser);
    }

    #[test]
    fn what_is_unknown_is_named() {
        let cases = [
            ("eve", StartErrorKind::UnknownUser, "`eve`"),
            ("ada:eves", StartErrorKind::UnknownGroup, "`eves`"),
            ("", StartErrorKind::InvalidArgument, "``"),
            (":1", StartErrorKind::InvalidArgument, "`:1`"),
            ("ada:", StartErrorKind::InvalidArgument, "`ada:`"),
            ("4294967295", StartErrorKind::InvalidArgument, "4294967295"),
            ("-1", StartErrorKind::UnknownUser, "`-1`"),
        ];
        for (spec, kind, named) in cases {
            let error = database().resolve(Some(spec)).unwrap_err();
            assert_eq!(error.kind(), kind, "{spec}");
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
