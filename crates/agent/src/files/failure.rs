//! System errors as the protocol names them.

use std::io;

use kiln_protocol::FileErrorKind;
use rustix::io::Errno;

/// Why a file operation failed.
#[derive(Debug)]
pub(crate) struct FileError {
    pub(crate) kind: FileErrorKind,
    pub(crate) message: String,
}

impl FileError {
    pub(crate) fn new(kind: FileErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A failure at another path than the one that was asked for.
    pub(crate) fn at(path: &std::path::Path, error: impl Into<io::Error>) -> Self {
        let inner = Self::from(error.into());
        Self { message: format!("{}: {}", path.display(), inner.message), ..inner }
    }

    pub(crate) fn not_regular() -> Self {
        Self::new(FileErrorKind::NotARegularFile, "it is a device, a fifo or a socket")
    }
}

impl From<Errno> for FileError {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        let kind = match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => FileErrorKind::NotFound,
            Some(Errno::ACCESS | Errno::PERM) => FileErrorKind::PermissionDenied,
            Some(Errno::EXIST) => FileErrorKind::AlreadyExists,
            Some(Errno::NOTDIR) => FileErrorKind::NotADirectory,
            Some(Errno::ISDIR) => FileErrorKind::IsADirectory,
            Some(Errno::NOTEMPTY) => FileErrorKind::NotEmpty,
            Some(Errno::NXIO | Errno::NODEV) => FileErrorKind::NotARegularFile,
            Some(Errno::NOSPC | Errno::DQUOT) => FileErrorKind::NoSpace,
            Some(Errno::FBIG | Errno::OVERFLOW) => FileErrorKind::TooLarge,
            Some(Errno::ROFS) => FileErrorKind::ReadOnly,
            Some(Errno::LOOP | Errno::MLINK) => FileErrorKind::TooManyLinks,
            Some(Errno::NAMETOOLONG) => FileErrorKind::NameTooLong,
            Some(Errno::BUSY | Errno::TXTBSY) => FileErrorKind::Busy,
            Some(Errno::INVAL) => FileErrorKind::InvalidArgument,
            Some(Errno::NOMEM | Errno::MFILE | Errno::NFILE) => FileErrorKind::ResourceLimit,
            _ => FileErrorKind::Other,
        };
        Self { kind, message: error.to_string() }
    }
}
